"""What a GPU has no room or no numbers for runs on the CPU, and says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda_emulator.emulated import Emulator, HostMemory
from kernels.sparse_cases import bits, matrix
from kernels.test_factors import scattered
from service.algebra.lp.programs import WYNDOR

from nnz_kernels.api.sparse import SparseOps
from nnz_kernels.backends import Backend, load_sparse
from nnz_kernels.cuda import transposing
from nnz_kernels.errors import DeviceLimitError, DeviceMemoryError
from nnz_kernels.hosted import hosted, keep
from nnz_service.algebra.krylov.errand import Errand
from nnz_service.algebra.krylov.preconditioners import prepare
from nnz_service.algebra.lp.pdhg import Pdhg
from nnz_service.algebra.operands import Operands
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.algebra.ops import run_op
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.op_job import OpJob

pytestmark = pytest.mark.usefixtures("emulated_cuda")

Limit = Callable[[int], None]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Let arrays have so many bytes at most, from now on."""
    allocate = Emulator.allocate

    def limited(most: int) -> None:
        def take(self: Emulator, nbytes: int) -> HostMemory:
            if nbytes > most:
                raise DeviceMemoryError(f"{nbytes} bytes are needed, {most} are free")
            return allocate(self, nbytes)

        monkeypatch.setattr(Emulator, "allocate", take)

    return limited


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each array that is copied to the device."""
    upload, seen = Emulator.upload, []

    def counted(self: Emulator, host: Any, address: int) -> None:
        seen.append(host.nbytes)
        upload(self, host, address)

    monkeypatch.setattr(Emulator, "upload", counted)
    return seen


def test_a_matrix_without_room_stays_on_the_cpu(room: Limit) -> None:
    a, x = matrix((90, 40)), np.ones(40)
    room(100)

    operator = MatrixOperator(a, Backend.CUDA)

    assert operator.backend is operator.with_matrix(a).backend is Backend.CPU
    right = MatrixOperator(a, Backend.CPU).spmv(x)
    assert operator.spmv(x).tobytes() == right.tobytes()
    [row] = MatrixServable(operator).explain()
    assert "the matrix runs on the CPU" in row["reason"]
    assert "bytes are needed, 100 are free" in row["reason"]


def test_a_product_without_room_runs_on_the_cpu(room: Limit) -> None:
    """The matrix stays where it is, for narrower ones."""
    a, x = matrix((90, 40)), np.ones((40, 300))
    operator = MatrixOperator(a, Backend.CUDA)
    room(2000)

    found = operator.spmm(x)

    right = MatrixOperator(a, Backend.CPU).spmm(x)
    assert found.tobytes() == right.tobytes()
    assert operator.note.startswith("spmm runs on the CPU: 96000 bytes are needed")
    assert operator.backend is Backend.CUDA


def test_more_entries_than_a_device_sorts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(count: int, what: str) -> None:
        raise DeviceLimitError(f"{what} has {2**31} entries")

    a = matrix((30, 40))
    operator = MatrixOperator(a, Backend.CUDA)
    monkeypatch.setattr(transposing, "check_count", refuse)
    sparse: Any = load_sparse(Backend.CUDA)

    turned = sparse.transpose(a)
    found = operator.spmv(np.ones(30), transpose=True)

    assert bits(turned) == bits(load_sparse(Backend.CPU).transpose(a))
    np.testing.assert_allclose(found, np.bincount(a.indices, a.data, 40), 1e-12)
    assert "a matrix to transpose has 2147483648 entries" in operator.note


def operands(op: str, kernels: SparseOps[Any]) -> Operands:
    a, b = matrix((40, 30), density=0.4), matrix((30, 50), density=0.4, seed=2)
    rng = np.random.default_rng(1)
    tensors = {"x": rng.random((40, 3)), "y": rng.random((30, 3))}
    if op == "sddmm":
        return Operands(a, None, tensors, {}, kernels, 1)
    return Operands(a, b, {}, {}, kernels, 1)


@pytest.mark.parametrize("op", ["spgemm", "sddmm"])
def test_a_job_goes_on_without_room(op: str, room: Limit) -> None:
    """Parts on the GPU and parts on the CPU make one matrix; the result says why."""
    jobs = [
        OpJob(op, operands(op, load_sparse(backend)), count=4)
        for backend in (Backend.CUDA, Backend.CPU)
    ]
    jobs[0].step(0.0)
    assert jobs[0].result() == ({"op": op}, {})
    room(10)
    for job in jobs:
        while not job.step(0.0):
            pass

    here, there = (job.matrix for job in jobs)
    assert bits(here)[:2] == bits(there)[:2]
    np.testing.assert_allclose(here.data, there.data, 1e-13)
    [note] = jobs[0].result()[0]["notes"]
    assert note.startswith(f"{op} runs on the CPU: ")


@pytest.mark.parametrize("op", ["spgemm", "sddmm"])
def test_what_all_parts_take_is_copied_once(op: str, uploads: list[int]) -> None:
    given = operands(op, load_sparse(Backend.CUDA))
    whole = given.tensors["y"].nbytes if op == "sddmm" else given.other.data.nbytes
    job = OpJob(op, given, count=5)
    uploads.clear()

    steps = 1
    while not job.step(0.0):
        steps += 1

    assert steps == 5
    assert uploads.count(whole) == 1


def test_kept_copies_make_room(emulated: Any, room: Limit, uploads: list[int]) -> None:
    """They go before anything is refused, and come back when there is room."""
    kernels: Any = hosted(emulated)
    a = matrix((90, 40))
    keep(kernels, a.indptr, a.indices, a.data)
    kernels.transpose(a)
    kernels.transpose(a)
    assert uploads.count(a.data.nbytes) == 1
    room(10)

    with pytest.raises(DeviceMemoryError, match="bytes are needed, 10 are free"):
        kernels.transpose(a)

    room(1 << 20)
    kernels.transpose(a)
    assert uploads.count(a.data.nbytes) == 2


def test_solvers_without_room(room: Limit) -> None:
    """A preconditioner and a linear program give what they give on the CPU."""
    a, block = scattered(61, 3), np.random.default_rng(1).standard_normal((61, 2))
    operators = [MatrixOperator(a, backend) for backend in (Backend.CUDA, Backend.CPU)]
    room(10)

    there, here = (
        prepare("ilu0", one, "cg", Errand()).apply(block) for one in operators
    )
    programs = [Pdhg(WYNDOR, backend=b, threads=1) for b in (Backend.CUDA, Backend.CPU)]
    found = [one.step(iterations=100_000).x.tobytes() for one in programs]

    assert there.tobytes() == here.tobytes()
    assert found[0] == found[1]


def test_vectors_without_room(room: Limit) -> None:
    u = {"u.indices": np.array([4, 1], np.int32), "u.values": np.array([1.0, 2.0])}
    v = {"v.indices": np.array([1, 9], np.int32), "v.values": np.array([3.0, 5.0])}
    room(10)

    found = run_op("axpy", {"r": 2.0}, {**u, **v}, backend=Backend.CUDA)

    assert found["w.values"].tolist() == [1.0, 8.0, 10.0]
