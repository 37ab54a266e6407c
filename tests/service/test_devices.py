"""Which device a worker takes, and products and vectors on an emulated GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import draw, graph, node

from nnz_kernels.backends import Backend, probe
from nnz_kernels.convert import csr_from_dense
from nnz_kernels.errors import BackendUnavailableError
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.algebra.ops import run_op
from nnz_service.engine import load
from nnz_service.errors import DeviceFullError
from nnz_service.worker import Toolbox, choose_backend


class TestChoice:
    def test_without_a_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """``auto`` falls back, ``cuda`` says why not."""
        if probe(Backend.CUDA).available:
            pytest.skip("there is a device")

        assert choose_backend("auto") is Backend.CPU
        assert choose_backend("cpu") is Backend.CPU
        with pytest.raises(BackendUnavailableError, match="cuda: "):
            choose_backend("cuda")

    @pytest.mark.usefixtures("emulated_cuda")
    def test_with_a_device(self) -> None:
        assert choose_backend("auto") is Backend.CUDA
        assert choose_backend("cpu") is Backend.CPU


@pytest.mark.usefixtures("emulated_cuda")
def test_cuda_served_in_half_precision(tmp_path: Path) -> None:
    """What a worker is told for its models."""
    file = tmp_path / "m.onnx"
    file.write_bytes(_model())
    x = draw(np.float32, (1, 8, 4, 4))
    weights = draw(np.float32, (4, 8, 1, 1))

    servable = Toolbox(Backend.CUDA, precision="fp16").load("model", file)

    found = servable.run({"x": x}, None)["y"]
    right = np.einsum("oi,nihw->nohw", weights[:, :, 0, 0], x)
    gap = np.linalg.norm(found - right) / np.linalg.norm(right)
    assert 1e-5 < gap < 4e-3


@pytest.mark.usefixtures("emulated_cuda")
class TestCuda:
    def test_cuda_products(self) -> None:
        """The matrix stays on the device; operands come and go."""
        dense = np.array([[0.0, 2, 0], [0, 0, 0], [3, 4, -1]])
        operator = MatrixOperator(csr_from_dense(dense), Backend.CUDA)
        x = np.arange(6.0).reshape(3, 2)

        np.testing.assert_allclose(operator.spmv(x[:, 0]), dense @ x[:, 0])
        np.testing.assert_allclose(operator.spmm(x), dense @ x)
        np.testing.assert_allclose(operator.spmm(x, transpose=True), dense.T @ x)

    def test_cuda_vectors(self) -> None:
        u = {"u.indices": np.array([4, 1], np.int32), "u.values": np.array([1.0, 2.0])}
        v = {"v.indices": np.array([1, 9], np.int32), "v.values": np.array([3.0, 5.0])}

        found = run_op("axpy", {"r": 2.0}, {**u, **v}, backend=Backend.CUDA)

        assert found["w.indices"].tolist() == [4, 1, 9]
        assert found["w.values"].tolist() == [1.0, 8.0, 10.0]

    def test_cuda_is_what_auto_takes(self) -> None:
        model = load(_model(), backend="auto", tuning_seconds=0)

        x = draw(np.float32, (1, 8, 4, 4))
        assert model.run({"x": x})["y"].shape == (1, 4, 4, 4)
        kernels = [row["kernel"] for row in model.explain()]
        assert [kernels[0], kernels[1][:5], kernels[2]] == [
            "to_planes", "dense", "from_planes",
        ]  # fmt: skip

    def test_cuda_measures_candidates(self) -> None:
        """Each tiling is run; the fastest is taken, and the reason says by how much."""
        model = load(_model(), backend="cuda", tuning_seconds=10)

        [row] = [row for row in model.explain() if row["op"] == "Conv"]
        assert len(row["candidates"]) >= 4
        assert "measured" in row["reason"]


@pytest.mark.usefixtures("emulated_cuda")
def test_too_little_memory_is_refused_with_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cuda_emulator.emulated import Emulator

    from nnz_kernels.errors import DeviceMemoryError

    def refuse(self: Emulator, nbytes: int) -> None:
        raise DeviceMemoryError(f"{nbytes} bytes are needed, but 0 of 8 are free")

    monkeypatch.setattr(Emulator, "allocate", refuse)

    with pytest.raises(DeviceFullError, match=r"bytes are needed, but 0 of 8 are free"):
        load(_model(), backend="cuda", tuning_seconds=0)


def _model() -> bytes:
    weights = {"w": draw(np.float32, (4, 8, 1, 1))}
    return graph([node("Conv", "x w")], {"x": (np.float32, (1, 8, 4, 4))}, weights)
