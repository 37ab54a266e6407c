"""The committed networks are what the demo's README says they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

FOLDER = Path(__file__).parents[2] / "deploy" / "demo"
DENSE, SPARSE = FOLDER / "digits_dense.onnx", FOLDER / "digits_sparse.onnx"


@pytest.fixture(scope="module")
def digits() -> ModuleType:
    """The demo's own preprocessing and split."""
    spec = importlib.util.spec_from_file_location("digits", FOLDER / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accuracy(path: Path, digits: ModuleType) -> float:
    pixels, labels = digits.load_held_out()
    session = onnxruntime.InferenceSession(str(path))
    (logits,) = session.run(["logits"], {"x": digits.preprocess(pixels)})
    return float((logits.argmax(axis=1) == labels).mean())


def matrices(path: Path) -> dict[str, NDArray[np.float32]]:
    """Weights as (outputs, rest), of pointwise convolutions and connected layers."""
    graph = onnx.load(str(path)).graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight = stored[node.input[1]]
            if weight.ndim == 2 or weight.shape[2:] == (1, 1):
                found[node.name] = weight.reshape(weight.shape[0], -1)
    return found


@pytest.mark.parametrize("path", [DENSE, SPARSE], ids=["dense", "sparse"])
class TestFile:
    def test_is_small_and_valid(self, path: Path) -> None:
        """
        Under 500 kB, opset 17, accepted by the checker.
        """
        model = onnx.load(str(path))

        onnx.checker.check_model(model, full_check=True)
        assert path.stat().st_size < 500_000
        assert model.opset_import[0].version == 17

    def test_batch_is_free(self, path: Path) -> None:
        """
        One picture or seven: the answers are the same.
        """
        session = onnxruntime.InferenceSession(str(path))
        x = np.random.default_rng(0).standard_normal((7, 1, 16, 16), dtype=np.float32)

        (seven,) = session.run(None, {"x": x})
        (one,) = session.run(None, {"x": x[:1]})

        np.testing.assert_allclose(one, seven[:1], rtol=1e-4, atol=1e-5)


class TestAccuracy:
    def test_dense(self, digits: ModuleType) -> None:
        """
        The dense network names at least 98 of 100 held-out digits rightly.
        """
        assert accuracy(DENSE, digits) >= 0.98

    def test_pruned(self, digits: ModuleType) -> None:
        """
        The pruned one is at most one point behind.
        """
        assert accuracy(SPARSE, digits) >= accuracy(DENSE, digits) - 0.01


class TestSparsity:
    def test_ninety_percent_of_each_layer(self) -> None:
        """
        Every pointwise and connected layer keeps one block of ten.
        """
        for name, weight in matrices(SPARSE).items():
            block = 4 if weight.shape[0] % 4 == 0 else 2
            cut = weight.reshape(-1, block, weight.shape[1])
            kept = (cut != 0).any(axis=1)
            assert kept.mean() == pytest.approx(0.1, abs=1 / kept.size), name

    def test_blocks_are_full(self) -> None:
        """
        The zeros stand in whole blocks: hardly a kept block holds a zero.
        """
        for name, weight in matrices(SPARSE).items():
            block = 4 if weight.shape[0] % 4 == 0 else 2
            cut = weight.reshape(-1, block, weight.shape[1]).swapaxes(1, 2)
            kept = cut[(cut != 0).any(axis=2)]
            assert (kept != 0).mean() > 0.99, name

    def test_dense_has_no_zeros(self) -> None:
        """
        The dense network was never pruned.
        """
        assert all((weight != 0).all() for weight in matrices(DENSE).values())


class TestHeldOut:
    def test_is_a_quarter_of_each_class(self, digits: ModuleType) -> None:
        """
        A quarter of each digit is held out, the same one at every call.
        """
        # Takes a second, which every process that collects would pay.
        from sklearn.datasets import load_digits

        pixels, labels = digits.load_held_out()
        again, _ = digits.load_held_out()

        assert np.array_equal(pixels, again)
        assert len(labels) == 450
        assert np.bincount(labels).tolist() == [
            round(0.25 * count) for count in np.bincount(load_digits().target)
        ]
