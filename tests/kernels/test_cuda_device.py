"""Arrays, tables and recordings on an emulated device."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_emulator.emulated import Emulator
from kernels.network_cases import planes

from nnz_kernels.api import ConvSpec
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import Device
from nnz_kernels.cuda.health import check_device
from nnz_kernels.cuda.kernels import CudaKernels
from nnz_kernels.cuda.warm import warm
from nnz_kernels.errors import (
    BackendUnavailableError,
    DTypeError,
    ShapeError,
    StructureError,
)
from nnz_kernels.formats import Csr
from nnz_kernels.planes import Grid


@pytest.fixture
def kernels(emulator_folder: Path) -> CudaKernels:
    return CudaKernels(Device(Emulator(emulator_folder)))


class TestArrays:
    def test_cuda_views(self, kernels: CudaKernels) -> None:
        """A view with gaps, or backwards, comes to the host as it is."""
        host = np.arange(24, dtype=np.float32).reshape(4, 6)
        there = kernels.device.to_device(host)
        backwards = DeviceArray(there.memory, 4 * 17, there.dtype, (2, 3), (-24, -8))

        part = kernels.device.to_host(there.part(1, 3).transposed((1, 0)))

        np.testing.assert_array_equal(part, host[1:3].T)
        found = kernels.device.to_host(backwards)
        np.testing.assert_array_equal(found, host[2:0:-1, 5:0:-2])

    def test_cuda_reshape_of_gaps_is_refused(self, kernels: CudaKernels) -> None:
        there = kernels.device.zeros((4, 6), np.float32)

        with pytest.raises(ShapeError, match="without a copy"):
            there.transposed((1, 0)).reshape(24)

    def test_cuda_array_interface(self, kernels: CudaKernels) -> None:
        """What CuPy, Numba and PyTorch read."""
        there = kernels.device.zeros((2, 3), np.float64)

        found = there.__cuda_array_interface__

        assert found["shape"] == (2, 3)
        assert found["typestr"] == "<f8"
        assert found["data"] == (there.address, False)


class TestChecks:
    def test_cuda_types(self, kernels: CudaKernels) -> None:
        """A kernel for float32 never reads another type."""
        whole = kernels.device.zeros((4,), np.int32)
        double = kernels.device.zeros((4,), np.float64)

        with pytest.raises(DTypeError, match="x must be float32, got int32"):
            kernels.unary("relu", whole, whole)
        with pytest.raises(DTypeError, match="a must be float32, got float64"):
            kernels.binary("add", double, double)

    def test_cuda_fill_of_gaps_is_refused(self, kernels: CudaKernels) -> None:
        there = kernels.device.zeros((4, 6), np.float32)

        for value in (0.0, 1.0):
            with pytest.raises(ShapeError, match="C order"):
                kernels.fill(there.transposed((1, 0)), value)

    def test_cuda_old_device(
        self, kernels: CudaKernels, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        facts = {"name": "old", "compute_capability": "7.0"}
        monkeypatch.setattr(Emulator, "describe", lambda self: facts)

        with pytest.raises(BackendUnavailableError, match=r"7\.0 is below 7\.5"):
            check_device(kernels)
        with pytest.raises(BackendUnavailableError, match=r"bf16 needs .* 8\.0"):
            kernels.with_precision("bf16")


def test_cuda_tables_live_as_long_as_calls(kernels: CudaKernels) -> None:
    """Many other grids push a table out; who uses it still has it."""
    grid = Grid(1, 4, 5, 1, 1)
    weights = np.ones((2, 3, 3, 3), np.float32)
    spec = ConvSpec(pads=(1, 1, 1, 1))
    image = np.random.default_rng(0).standard_normal((1, 3, 4, 5)).astype(np.float32)
    conv = kernels.prepare_conv(weights, None, spec, block=1)
    bound = conv.bind(grid, grid)
    x = kernels.device.to_device(planes(image, grid))
    y = kernels.device.empty((grid.size(2),), np.float32)
    scratch = kernels.device.empty((bound.scratch,), np.float32)
    call = bound.attach(x, y, None, scratch)
    call()
    expected = kernels.device.to_host(y).copy()

    for width in range(1, 600):
        kernels.plane(Grid(1, 1, width), 1)
    del conv, bound
    call()

    np.testing.assert_array_equal(kernels.device.to_host(y), expected)


def test_cuda_transposes_belong_to_their_matrix(kernels: CudaKernels) -> None:
    """Matrices may share row pointers and differ in what they hold."""
    device = kernels.device
    indptr = device.to_device(np.array([0, 1, 2], np.int32))
    indices = device.to_device(np.array([1, 0], np.int32))
    y = device.to_device(np.array([1.0, 10.0]))
    found = []

    for data in ([2.0, 3.0], [5.0, 7.0]):
        a = Csr(indptr, indices, device.to_device(np.array(data)), (2, 2))
        found.append(device.to_host(kernels.spmv_t(a, y)).tolist())

    assert found == [[30.0, 2.0], [70.0, 5.0]]


def test_cuda_what_is_known_of_a_matrix_goes_with_it(kernels: CudaKernels) -> None:
    """Its transpose too, which no cycle may keep on the device."""
    device = kernels.device
    parts = ([0, 1, 2], np.int32), ([1, 0], np.int32), ([2.0, 3.0], np.float64)
    arrays = (device.to_device(np.array(values, kind)) for values, kind in parts)
    a = Csr(*arrays, (2, 2))
    kernels.spmv_t(a, device.to_device(np.ones(2)))
    assert len(kernels._shapes) > 0

    del a, arrays

    assert len(kernels._shapes) == 0


def test_cuda_no_right_hand_side_and_no_pivot(kernels: CudaKernels) -> None:
    """The triangle is looked at all the same, as on the host."""
    device = kernels.device
    indptr = device.to_device(np.array([0, 1, 1], np.int32))
    indices = device.to_device(np.array([0], np.int32))
    a = Csr(indptr, indices, device.to_device(np.ones(1)), (2, 2))

    with pytest.raises(StructureError, match="row 1 is zero or missing"):
        kernels.triangular_solve(a, device.empty((2, 0), np.float64))


class TestRecording:
    def test_cuda_reading_while_recording_is_refused(
        self, kernels: CudaKernels
    ) -> None:
        x = kernels.device.zeros((4,), np.float32)

        with pytest.raises(RuntimeError, match="being recorded"):
            kernels.device.record(lambda: kernels.device.to_host(x))

    def test_cuda_recorded_work_is_done_later(self, kernels: CudaKernels) -> None:
        x = kernels.device.to_device(np.array([[3, 1], [2, 5]], np.float32))
        out = kernels.device.zeros((2, 2), np.float32)

        # Along the first axis a copy is needed, which the call keeps.
        call = kernels.device.record(lambda: kernels.copy(kernels.softmax(x, 0), out))

        assert not kernels.device.to_host(out).any()
        call()
        np.testing.assert_allclose(kernels.device.to_host(out).sum(axis=0), 1, 1e-6)

    def test_cuda_graph_replays(self, kernels: CudaKernels) -> None:
        y = kernels.device.zeros((8,), np.float32)
        ask = kernels.device.record(lambda: kernels.unary("exp", y, y))

        replay = kernels.device.capture([ask, ask])

        assert not kernels.device.to_host(y).any()
        replay()
        np.testing.assert_allclose(kernels.device.to_host(y), np.e, rtol=1e-6)

    def test_cuda_other_threads_are_not_recorded(self, kernels: CudaKernels) -> None:
        """What another thread asks meanwhile is done, and is no part of the graph."""
        mine, other = (kernels.device.zeros((8,), np.float32) for _ in range(2))
        recording, asked = threading.Event(), threading.Event()
        ask = kernels.device.record(lambda: kernels.fill(mine, 2.0))

        def meanwhile() -> None:
            recording.wait(10)
            asked.set()
            kernels.fill(other, 1.0)

        def slow() -> None:
            recording.set()
            assert asked.wait(10)
            ask()

        thread = threading.Thread(target=meanwhile)
        thread.start()
        replay = kernels.device.capture([slow])
        thread.join()

        assert kernels.device.to_host(other).tolist() == [1.0] * 8
        kernels.fill(other, 3.0)
        replay()
        assert kernels.device.to_host(other).tolist() == [3.0] * 8
        assert kernels.device.to_host(mine).tolist() == [2.0] * 8


def test_cuda_warm_compiles_what_a_precision_needs(kernels: CudaKernels) -> None:
    seen: list[Any] = []

    count = warm(kernels, lambda *progress: seen.append(progress))

    assert len(seen) == count
    names = [name for *_, name in seen]
    assert "conv_block<float, 4, 8>" in names
    assert "spmv_csr<double, int, 8>" in names
    assert not any("half_t" in name or "bf16_t" in name for name in names)
