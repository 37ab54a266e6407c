"""Solves whose vectors stay on a GPU, an emulated one, against those of the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_emulator.emulated import Emulator, HostMemory
from service.algebra.krylov.systems import PAIRS, convection, indefinite, poisson

from nnz_kernels.backends import Backend
from nnz_kernels.convert import csr_from_scipy
from nnz_kernels.cuda.kernels import CudaKernels
from nnz_kernels.errors import DeviceLimitError, DeviceMemoryError
from nnz_service.algebra.krylov import Done, Solve
from nnz_service.algebra.krylov.there import There
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.solving import SolveSettings

pytestmark = pytest.mark.usefixtures("emulated_cuda")

#: What each method is for; small, for each launch is a pass over emulated blocks.
SUITED = {
    "cg": poisson(13),
    "minres": indefinite(13),
    "bicgstab": convection(13),
    "gmres": convection(11),
    "lsqr": convection(9),
    "direct": convection(13),
}


def begun(
    method: str, preconditioner: str, backend: Backend, *, columns: int | None = None
) -> tuple[Solve, Any, Any]:
    """A solve of what its method is for, with the matrix and the right-hand side."""
    a = SUITED[method]
    shape = (a.shape[0],) if columns is None else (a.shape[0], columns)
    b = np.random.default_rng(4).standard_normal(shape)
    settings = SolveSettings(method=method, preconditioner=preconditioner, rtol=1e-9)
    solve = Solve(MatrixOperator(csr_from_scipy(a), backend), b, settings=settings)
    while not solve.prepared:
        solve.make_ready(1)
    return solve, a, b


def ended(solve: Solve) -> Done:
    while not isinstance(found := solve.step(iterations=50), Done):
        pass
    return found


def gap(a: Any, x: Any, b: Any) -> float:
    """The residual; of least squares, that of the normal equations."""
    r = a.T @ (b - a @ x) if a.shape[0] != a.shape[1] else b - a @ x
    return float(np.linalg.norm(r) / np.linalg.norm(b))


@pytest.mark.parametrize(("method", "preconditioner"), PAIRS)
def test_they_end_as_on_the_host(
    method: str, preconditioner: str, emulated: CudaKernels
) -> None:
    launches: dict[str, int] = emulated.device.launcher.launches
    before = launches.get("dense_axpby", 0)

    there, a, b = begun(method, preconditioner, Backend.CUDA)
    found = ended(there)
    right = ended(begun(method, preconditioner, Backend.CPU)[0])

    assert found.status == right.status == "converged"
    counts = [done.outcomes[0].iterations for done in (found, right)]
    assert max(counts) <= 1.1 * min(counts) + 1  # inner products add in another order
    assert gap(a, found.x, b) < 1e-7
    # Factors by SuperLU are the host's; all others iterate where the matrix is.
    moved = launches.get("dense_axpby", 0) > before
    assert moved == (method != "direct")


@pytest.mark.parametrize("method", ["cg", "gmres", "minres", "lsqr"])
def test_several_right_hand_sides(method: str) -> None:
    solve, a, b = begun(method, "none", Backend.CUDA, columns=3)

    found = ended(solve)

    assert found.status == "converged"
    assert gap(a, found.x, b) < 1e-7


@pytest.mark.parametrize("method", ["cg", "gmres", "minres", "lsqr", "bicgstab"])
def test_a_checkpoint_moves_between_both(method: str) -> None:
    """What was begun on a GPU goes on there with the same bits, or on the host."""
    solve, a, b = begun(method, "none", Backend.CUDA)
    solve.step(iterations=7)
    state = solve.state()

    first = ended(solve)
    again, elsewhere = (
        ended(Solve.restore(MatrixOperator(csr_from_scipy(a), backend), state))
        for backend in (Backend.CUDA, Backend.CPU)
    )

    assert again.x.tobytes() == first.x.tobytes()
    assert elsewhere.status == "converged"
    assert gap(a, elsewhere.x, b) < 1e-7


def full(self: Emulator, nbytes: int) -> HostMemory:
    raise DeviceMemoryError(f"{nbytes} bytes are needed, 0 are free")


def test_a_product_that_a_device_cannot_count_is_the_hosts(
    emulated: CudaKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve, a, b = begun("lsqr", "jacobi", Backend.CUDA)

    def refuse(*_: object, **__: object) -> None:
        raise DeviceLimitError("2147483648 entries need indices of 64 bits")

    monkeypatch.setattr(emulated, "_transposed", refuse)
    found = ended(solve)

    assert found.status == "converged"
    assert gap(a, found.x, b) < 1e-7


@pytest.mark.parametrize(
    ("method", "preconditioner"), [("cg", "none"), ("cg", "ic0"), ("gmres", "none")]
)
def test_a_device_that_fills_up_leaves_the_rest_to_the_host(
    method: str, preconditioner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve, a, b = begun(method, preconditioner, Backend.CUDA)
    solve.step(iterations=5)

    monkeypatch.setattr(Emulator, "allocate", full)
    found = ended(solve)

    assert found.status == "converged"
    assert found.outcomes[0].iterations > 5
    assert gap(a, found.x, b) < 1e-7


def test_a_checkpoint_that_a_device_has_no_room_for_goes_on_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With all that it had, not from the last iterate that was verified."""
    solve, a, b = begun("cg", "none", Backend.CUDA, columns=2)
    solve.step(iterations=7)
    state, there = solve.state(), MatrixOperator(csr_from_scipy(a), Backend.CUDA)
    moved, take = [], There.take

    def once(self: There, x: Any) -> Any:
        moved.append(x)
        if len(moved) > 3:
            raise DeviceMemoryError(f"{x.nbytes} bytes are needed, 0 are free")
        return take(self, x)

    monkeypatch.setattr(There, "take", once)
    again = Solve.restore(there, state)

    kept = again.state()
    assert {name: kept[name].tobytes() for name in ("r.1", "p.1", "x.1")} == {
        name: state[name].tobytes() for name in ("r.1", "p.1", "x.1")
    }
    assert gap(a, ended(again).x, b) < 1e-7
