"""Which block is found, which is chosen, and what happens when a kernel is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_graphs import draw, graph, node

from nnz_kernels import reference
from nnz_kernels.api.conv import ConvSpec, Tiling
from nnz_kernels.planes import token_grid
from nnz_service.engine import load
from nnz_service.engine.choices import Choices
from nnz_service.engine.graph import Array, Graph, Node
from nnz_service.engine.passes.layers import layer_attrs
from nnz_service.engine.passes.sparsify import Layer, choose, sparsify
from nnz_service.engine.tuning import Problem, Tuner
from nnz_service.errors import ServiceError

F = np.float32


def pruned(block: int, density: float, shape: tuple[int, int] = (64, 96)) -> Array:
    """Weights with whole blocks of outputs at zero."""
    rows, columns = shape
    rng = np.random.default_rng(block)
    kept = rng.random((rows // block, columns)) < density
    return draw(F, shape) * kept.repeat(block, axis=0).astype(F)


@pytest.mark.parametrize("block", [1, 4, 16])
def test_finds_the_block_that_was_pruned(block: int) -> None:
    choice = choose(pruned(block, 0.1), groups=1)

    assert choice.blocks_found[0] == block
    assert choice.density == pytest.approx(0.1, abs=0.05)


def test_wide_blocks_are_chosen_over_single_weights() -> None:
    assert choose(pruned(1, 0.1), 1).block == 1
    assert choose(pruned(4, 0.1), 1).block == 4


@pytest.mark.parametrize(("block", "density"), [(1, 0.6), (4, 0.95)])
def test_too_dense_stays_dense(block: int, density: float) -> None:
    choice = choose(pruned(block, density), 1)

    assert choice.block is None
    assert "of dense time" in choice.reason


def test_no_zeros_no_blocks() -> None:
    choice = choose(np.ones((8, 8), F), 1)

    assert (choice.block, choice.blocks_found) == (None, ())


def test_all_zeros() -> None:
    file = graph(
        [node("MatMul", "x w", "m"), node("Add", "m b")],
        {"x": (F, ("n", 8))},
        {"w": np.zeros((8, 16), F), "b": np.arange(16, dtype=F)},
    )

    found = load(file).run({"x": draw(F, (2, 8))})["y"]

    np.testing.assert_array_equal(found, np.tile(np.arange(16, dtype=F), (2, 1)))


class Faulty:
    """The reference, but for sparse kernels that forget the bias."""

    def __getattr__(self, name: str) -> Any:
        return getattr(reference, name)

    def prepare_conv(
        self,
        weights: Array,
        bias: Array | None,
        spec: ConvSpec,
        /,
        *,
        block: int | None,
        tiling: Tiling = "direct",
    ) -> Any:
        kept = bias if block is None else None
        return reference.prepare_conv(weights, kept, spec, block=block, tiling=tiling)


def _sparsify(kernels: Any, tuner: Tuner | None = None) -> Layer:
    attrs = layer_attrs(pruned(4, 0.1), np.ones(64, F))
    graph = Graph((), (), [Node("Linear", "fc", ["x"], ["y"], attrs)], {})
    grids = {"fc": (token_grid(1), token_grid(1))}
    return sparsify(graph, kernels, {"fc": ConvSpec()}, grids, tuner)["fc"]


def _tuner(kernels: Any) -> Tuner:
    """Have a choice of the block of four, measured before."""
    tuner = Tuner(kernels, 1, Choices(None, "test"), 60.0)
    weights = pruned(4, 0.1)[:, :, None, None]
    grids = (token_grid(1), token_grid(1))
    problem = Problem(weights, np.ones(64, F), ConvSpec(), grids)
    expected = choose(weights, 1).expected
    tuner.measure(problem, expected)
    entry = [[4, "direct", "spmm_b4", 1.0, 9000], [None, "direct", "dense", 2.0, 9000]]
    tuner.choices.put(tuner._key(problem, expected), entry)
    return tuner


def test_right_kernel_is_kept() -> None:
    layer = _sparsify(reference)

    assert (layer.block, layer.prepared.block, layer.fell_back) == (4, 4, False)
    assert layer.candidates == ()


@pytest.mark.parametrize("measured", [False, True])
def test_wrong_kernel_falls_back_to_dense(
    measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NNZ_STRICT", raising=False)
    kernels: Any = Faulty()

    with pytest.warns(RuntimeWarning, match="'fc' .* differs from the dense result"):
        layer = _sparsify(kernels, _tuner(kernels) if measured else None)

    assert (layer.block, layer.prepared.block) == (None, None)
    assert layer.fell_back
    assert layer.reason == "spmm_b4 differed from the dense kernel at load"


@pytest.mark.parametrize("measured", [False, True])
def test_wrong_kernel_is_an_error_when_strict(
    measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNZ_STRICT", "1")
    kernels: Any = Faulty()
    tuner = _tuner(kernels) if measured else None

    with pytest.raises(ServiceError, match="differs from the dense result"):
        _sparsify(kernels, tuner)
