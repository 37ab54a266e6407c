"""A few pixels have the bits that they have among many."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from kernels.network_cases import (
    BLOCKS,
    array,
    close,
    pixels,
    planes,
    random_case,
)
from kernels.network_cases import convolve as run

from nnz_kernels import cpu, reference
from nnz_kernels.api import ConvSpec, Tiling
from nnz_kernels.api.conv import ACTIVATIONS
from nnz_kernels.api.pointwise import UnaryKind
from nnz_kernels.cpu.conv import CpuBoundConv
from nnz_kernels.cpu.few_pixels import FEW, FewPixels
from nnz_kernels.cpu.tasks import chunk_columns
from nnz_kernels.planes import Grid, token_grid

WAYS = tuple(itertools.product(("direct", "panel", "narrow", "chunk"), BLOCKS))
SPEC = ConvSpec(clamp=(-1.0, 1.5))

#: Outputs and inputs: fewer than a run has rows, no multiple of one, many runs.
SHAPES = [(1, 5), (13, 33), (130, 300)]


@pytest.mark.usefixtures("three_threads")
class TestSameBits:
    @pytest.mark.parametrize("count", range(1, FEW + 2))
    @pytest.mark.parametrize("added", [False, True], ids=["sum", "residual"])
    @pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
    def test_as_among_many_tokens(
        self, outputs: int, inputs: int, added: bool, count: int
    ) -> None:
        """A batch of one is answered as its row in a batch of eight."""
        x, weights, bias = random_case(40, (1, inputs, 1, 8), (outputs, inputs), 0.3)
        weights = weights[:, :, None, None]
        residual = random_case(41, (1, outputs, 1, 8), (1, 1), 1)[0] if added else None
        few = None if residual is None else residual[..., :count]

        many = run(cpu, x, weights, bias, SPEC, residual=residual)

        close(many, run(reference, x, weights, bias, SPEC, residual=residual))
        for (tiling, block), threads in itertools.product(WAYS, (1, 2, 3)):
            y = run(
                cpu,
                x[..., :count],
                weights,
                bias,
                SPEC,
                block=block,
                tiling=tiling,
                residual=few,
                threads=threads,
            )
            np.testing.assert_array_equal(y, many[..., :count], f"{tiling} {block}")

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
    def test_with_an_activation(
        self, outputs: int, inputs: int, activation: UnaryKind
    ) -> None:
        spec = ConvSpec(clamp=(-4.0, 3.0), activation=activation)
        x, weights, bias = random_case(48, (1, inputs, 1, 8), (outputs, inputs), 0.3)
        weights = weights[:, :, None, None]

        many = run(cpu, x, weights, bias, spec, block=4)

        close(many, run(reference, x, weights, bias, spec), 1e-5)
        for count, block in itertools.product(range(1, FEW + 2), BLOCKS):
            y = run(cpu, x[..., :count], weights, bias, spec, block=block, threads=3)
            np.testing.assert_array_equal(y, many[..., :count], f"{count} {block}")

    @pytest.mark.parametrize("borders", [((0, 0), (1, 1)), ((2, 1), (0, 0))])
    def test_as_among_many_images(self, borders: Any) -> None:
        x, weights, bias = random_case(42, (8, 17, 1, 1), (20, 17, 1, 1), 0.5)

        many = run(cpu, x, weights, bias, borders=borders)

        for images in range(1, FEW + 2):
            y = run(cpu, x[:images], weights, bias, borders=borders, block=2, threads=3)
            np.testing.assert_array_equal(y, many[:images])


@pytest.mark.parametrize(("tiling", "block"), WAYS)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.usefixtures("three_threads")
def test_residual_may_be_the_output(
    tiling: Tiling, block: int | None, threads: int
) -> None:
    size = 3 + chunk_columns(block)
    x, weights, bias = random_case(43, (3, size, 1, 1), (size, size, 1, 1), 0.1)
    residual = x[:, ::-1].copy()
    grid = Grid(3, 1, 1, 1, 1)
    prepared = cpu.prepare_conv(weights, bias, SPEC, block=block, tiling=tiling)
    conv = prepared.bind(grid, grid, threads=threads)
    y = planes(residual, grid)

    conv.run(planes(x, grid), y, y, np.full(conv.scratch, np.nan, np.float32))

    expected = run(reference, x, weights, bias, SPEC, residual=residual)
    close(pixels(y, grid, size), expected)


@pytest.mark.parametrize(("tiling", "block"), WAYS)
def test_special_values(tiling: Tiling, block: int | None) -> None:
    """Each token keeps its own NaN and infinity."""
    x, weights, bias = random_case(44, (1, 300, 1, 4), (13, 300, 1, 1), 0.1)
    x[0, 7, 0, 1], x[0, 200, 0, 2], x[0, 299, 0, 2] = np.nan, np.inf, -np.inf

    y = run(cpu, x, weights, bias, SPEC, block=block, tiling=tiling)

    with np.errstate(invalid="ignore"):
        close(y, run(reference, x, weights, bias, SPEC, block=block))


def test_weights_without_any_column() -> None:
    x, weights, bias = random_case(45, (1, 300, 1, 2), (13, 300, 1, 1), 0.0)

    for tiling, block in WAYS:
        y = run(cpu, x, weights, bias, block=block, tiling=tiling, threads=2)
        np.testing.assert_array_equal(y, np.stack([bias, bias], -1)[None, :, None])


class TestBind:
    def test_takes_over_up_to_few(self) -> None:
        conv = cpu.prepare_conv(array(range(6), 3, 2, 1, 1), None, SPEC, block=1)

        for count in range(1, FEW + 3):
            bound = conv.bind(token_grid(count), token_grid(count))
            kind = FewPixels if count <= FEW else CpuBoundConv
            assert isinstance(bound, kind), count

    @pytest.mark.parametrize(
        "spec", [ConvSpec(groups=2), ConvSpec(strides=(2, 2)), ConvSpec(pads=(1,) * 4)]
    )
    def test_leaves_other_convolutions_alone(self, spec: ConvSpec) -> None:
        shape = (4, 4 // spec.groups, 1, 1)
        x, weights, bias = random_case(46, (1, 4, 2, 2), shape, 1.0)
        size = spec.output_size(2, 2, (1, 1))

        bound = cpu.prepare_conv(weights, bias, spec, block=None).bind(
            Grid(1, 2, 2), Grid(1, *size)
        )

        assert not isinstance(bound, FewPixels)
        close(run(cpu, x, weights, bias, spec), run(reference, x, weights, bias, spec))

    @pytest.mark.usefixtures("three_threads")
    def test_shares_runs_out_unless_sums_are_in_parts(self) -> None:
        weights = random_case(47, (1,), (130, 300, 1, 1), 0.3)[1]
        grid = token_grid(1)
        whole, parts = (
            cpu.prepare_conv(weights, None, SPEC, block=1, tiling=tiling)
            for tiling in ("direct", "chunk")
        )
        assert isinstance(shared := whole.bind(grid, grid, threads=3), FewPixels)
        assert isinstance(alone := parts.bind(grid, grid, threads=3), FewPixels)

        assert shared.bounds[0] == alone.bounds[0] == 0
        assert len(shared.bounds) == 4
        assert shared.bounds[-1] == 130
        assert alone.bounds.tolist() == [0, 130 * parts.packed.chunks]


def test_more_inputs_than_16_bits_can_name() -> None:
    """70,000 inputs of which the last ones count most."""
    weights = np.zeros((3, 70_000, 1, 1), np.float32)
    weights[0, [0, 65_535, 65_536, 69_999]] = array([1, 10, 100, 1000], 4, 1, 1)
    weights[2, 69_998] = 1
    x = np.zeros((1, 70_000, 1, 1), np.float32)
    x[0, [0, 65_535, 65_536, 69_998, 69_999], 0, 0] = [1, 2, 3, 4, 5]

    bias = array([0, 7, 0], 3)
    for tiling, block in WAYS:
        y = run(cpu, x, weights, bias, block=block, tiling=tiling, threads=2)
        assert y.ravel().tolist() == [5321, 7, 4]
