"""What the service asks of the algebra on a GPU, on an emulated one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels.sparse_cases import matrix, same
from kernels.test_factors import scattered
from service.algebra.lp.programs import WYNDOR

from nnz_kernels.backends import Backend, load_factors, load_saddle, load_sparse
from nnz_kernels.cuda.kernels import CudaKernels
from nnz_service.algebra.graphs import relaxing
from nnz_service.algebra.krylov.errand import Errand
from nnz_service.algebra.krylov.preconditioners import prepare
from nnz_service.algebra.lp.pdhg import Pdhg
from nnz_service.algebra.lp.settings import LpSettings
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.worker.sparse import Known, SparseOperation

pytestmark = pytest.mark.usefixtures("emulated_cuda")


def test_linear_programs_iterate_there(emulated: CudaKernels) -> None:
    """With the bits of the host, so that a checkpoint may move between both."""
    settings = LpSettings(eps_rel=1e-6, eps_abs=1e-6)
    lp = WYNDOR
    here, there = (
        Pdhg(lp, settings, backend=b, threads=1) for b in (Backend.CPU, Backend.CUDA)
    )
    before = emulated.device.launcher.launches.get("pdhg_dual<int>", 0)
    for solve in (here, there):
        solve.step(iterations=90)
    resumed = Pdhg.restore(lp, settings, here.state(), backend=Backend.CUDA)
    found = [solve.step(iterations=100_000) for solve in (here, there, resumed)]

    assert emulated.device.launcher.launches["pdhg_dual<int>"] > before
    assert {outcome.status for outcome in found} == {"optimal"}
    for outcome in found[1:]:
        assert outcome.iterations == found[0].iterations
        assert outcome.x.tobytes() == found[0].x.tobytes()


@pytest.mark.parametrize("name", ["ilu0", "ic0"])
def test_preconditioners_are_made_and_applied_there(
    name: str, emulated: CudaKernels
) -> None:
    a, block = scattered(61, 3), np.random.default_rng(1).standard_normal((61, 2))
    here, there = (
        prepare(name, MatrixOperator(a, backend), "cg", Errand())
        for backend in (Backend.CPU, Backend.CUDA)
    )

    for each in (block, block[:, :1].copy()):
        np.testing.assert_allclose(there.apply(each), here.apply(each), 1e-12)
    launches: dict[str, int] = emulated.device.launcher.launches
    assert launches[f"factor_{name}<int>"] > 0
    assert launches["solve_short_rows<double, int>"] > 0


def test_operations_run_there() -> None:
    """And an estimate names the back-end."""
    a = matrix((33, 33))
    operators = [MatrixOperator(a, Backend.CUDA)] * 2
    product = SparseOperation(Known(), "spgemm", {}, {}, operators)
    asked = SparseOperation(Known(), "spgemm", {"preflight": True}, {}, operators)

    product.run({}, None)
    asked.run({}, None)

    assert product.matrix is not None
    same(product.matrix, load_sparse(Backend.CPU).spgemm(a, a))
    assert asked.estimate["device"] == "cuda"


def test_each_family_is_the_devices() -> None:
    """Loaded by name, with NumPy arrays in and out."""
    sparse: Any = load_sparse(Backend.CUDA)
    a = matrix((5, 4))

    assert isinstance(sparse.transpose(a).data, np.ndarray)
    assert type(load_factors(Backend.CUDA)).__name__ == "HostedFactors"
    assert type(load_saddle(Backend.CUDA)).__name__ == "HostedSaddle"


def test_rounds_of_all_edges_run_there(
    emulated: CudaKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of shortest paths with negative weights, by products over min-plus."""
    a = matrix((70, 70), density=0.1)
    a = replace(a, data=np.arange(1.0, a.nnz + 1))
    monkeypatch.setattr(relaxing, "WIDE", 0.0)
    launches: dict[str, int] = emulated.device.launcher.launches
    kernel, found = "semiring_rows<double, int>", []
    before = launches.get(kernel, 0)
    for backend in (Backend.CPU, Backend.CUDA):
        course = relaxing.Relaxing(
            MatrixOperator(a, backend), int(np.diff(a.indptr).argmax())
        )
        while not course.round():
            pass
        found.append(course.result())

    assert launches[kernel] > before
    facts, arrays = zip(*found, strict=True)
    assert facts[0] == facts[1]
    assert facts[0]["reached"] > 20
    assert arrays[0]["distances"].tobytes() == arrays[1]["distances"].tobytes()
