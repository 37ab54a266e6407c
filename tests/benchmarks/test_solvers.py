"""Linear solvers beside SciPy's: the same systems, tolerance and core, in turns.

Answers come first: each is checked by its residual before anything is timed, and only
where both reached the tolerance there is a ratio. SciPy's `minres` and `lsqr` measure
themselves otherwise and stop before it: they are asked for more until they reach it.
SciPy gets the same preconditioner
where it has it: Jacobi, which is a product, and beside our ILU(0) its own incomplete
LU with thresholds (`spilu` as it comes). Times include making the preconditioner.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg as spla
from service.algebra.krylov.systems import convection, indefinite, poisson

from nnz_kernels.convert import csr_from_scipy, csr_to_scipy
from nnz_service.algebra.files import read_matrix
from nnz_service.algebra.krylov import Done, Solve
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import ServiceError
from nnz_service.solving import SolveSettings

pytestmark = [
    pytest.mark.benchmark,
    pytest.mark.timeout(3600),
    # SciPy's own solvers overflow, and tell of it, on some of these matrices.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::scipy.sparse.linalg.MatrixRankWarning"),
]

RTOL, LIMIT, ROUNDS = 1e-8, 2000, 3
#: Methods, what they are tried with, and whether they need a symmetric matrix.
METHODS: dict[str, tuple[tuple[str, ...], bool]] = {
    "cg": (("none", "jacobi", "ic0"), True),
    "minres": (("none", "jacobi", "ic0"), True),
    "bicgstab": (("none", "jacobi", "ilu0"), False),
    "gmres": (("none", "jacobi", "ilu0"), False),
    "lsqr": (("none",), False),
    "direct": (("none",), False),
}
#: What a residual may be above the tolerance: it is computed in another order here.
SLACK = 1.01
#: What SciPy is asked for, until it reaches the tolerance.
TIGHTER = (RTOL, RTOL / 10, RTOL / 100, RTOL / 1000)

Count = Callable[..., None]
#: Matrix, right-hand side, preconditioner, tolerance, what counts iterations.
Peer = Callable[[Any, Any, Any, float, Count], Any]


@dataclass(frozen=True)
class Answer:
    """A solution, or none, and how it was come by.

    Args:
        x: It; None where there is none.
        iterations: That it took.
        status: Or why there is none.
        tol: What was asked for.
    """

    x: Any
    iterations: int
    status: str = ""
    tol: float = RTOL


def _lsqr(a: Any, b: Any, _: Any, tol: float, count: Count) -> Any:
    x, _, iterations, *_ = spla.lsqr(a, b, atol=tol, btol=tol, iter_lim=LIMIT)
    for _ in range(iterations):
        count()
    return x


def _direct(a: Any, b: Any, _: Any, tol: float, count: Count) -> Any:
    count()
    return spla.splu(a.tocsc()).solve(b)


PEERS: dict[str, Peer] = {
    "cg": lambda a, b, m, tol, count: spla.cg(
        a, b, rtol=tol, maxiter=LIMIT, M=m, callback=count
    )[0],
    "minres": lambda a, b, m, tol, count: spla.minres(
        a, b, rtol=tol, maxiter=LIMIT, M=m, callback=count
    )[0],
    "bicgstab": lambda a, b, m, tol, count: spla.bicgstab(
        a, b, rtol=tol, maxiter=LIMIT, M=m, callback=count
    )[0],
    "gmres": lambda a, b, m, tol, count: spla.gmres(
        a, b, rtol=tol, restart=30, maxiter=LIMIT // 30, M=m, callback=count,
        callback_type="pr_norm",
    )[0],
    "lsqr": _lsqr,
    "direct": _direct,
}  # fmt: skip


def systems(folder: Path) -> dict[str, Any]:
    """Square matrices of the test data with 30 rows or more, and three grids."""
    found = {
        "poisson-150": poisson(150),
        "convection-100": convection(100),
        "indefinite-50": indefinite(50),
    }
    for path in sorted((folder / "mtx").rglob("*.mtx")):
        if "mangled" in path.parts:
            continue
        try:
            stored = csr_to_scipy(read_matrix(path, "text/x-matrix-market"))
        except ServiceError:  # not a matrix
            continue
        if stored.dtype.kind != "c" and stored.shape[0] == stored.shape[1] >= 30:
            found[path.stem] = stored.astype(float)
    return found


def test_table(data_dir: Path) -> None:
    """A status is never better than the residual, recomputed here, allows."""
    print(f"\nrtol {RTOL:g}, at most {LIMIT} iterations; residuals recomputed here; "
          "ratio: SciPy's time over ours")  # fmt: skip
    print(f"{'system':16} {'method':9} {'M':7} {'status':16} {'it':>5} {'residual':>9} "
          f"{'ms':>8}  {'scipy it':>8} {'residual':>9} {'ms':>8} {'ratio':>6}"
    )  # fmt: skip
    ratios: dict[str, list[float]] = {name: [] for name in METHODS}
    for name, a in systems(data_dir).items():
        symmetric = abs(a - a.T).max() == 0
        for method, (preconditioners, symmetric_only) in METHODS.items():
            if symmetric_only and not symmetric:
                continue
            for preconditioner in preconditioners:
                ratio = _row(name, a, method, preconditioner)
                ratios[method] += [] if ratio is None else [ratio]
    for method, found in ratios.items():
        mean = statistics.geometric_mean(found) if found else float("nan")
        print(f"{method:9} {len(found):3d} reached by both, SciPy's time over ours "
              f"{mean:.2f} (geometric mean)")  # fmt: skip
        assert found, f"no system was solved by {method} in both"


def _row(name: str, a: Any, method: str, preconditioner: str) -> float | None:
    """Compare one solve; the ratio of times, where both reached the tolerance."""
    b = a @ np.random.default_rng(4).standard_normal(a.shape[0])
    operator = MatrixOperator(csr_from_scipy(a), threads=1)
    settings = SolveSettings(
        method=method, rtol=RTOL, maxiter=LIMIT, preconditioner=preconditioner
    )
    mine, theirs = _solved(operator, b, settings), _best_of_scipy(a, b, settings)
    reached = _relative(a, mine.x, b)
    # Of least squares the gradient may be small where the residual is not.
    assert mine.status != "converged" or reached <= SLACK * RTOL or method == "lsqr"
    ours = others = 0.0
    if mine.status == "converged":
        ours, others = _timed(
            lambda: _solved(operator, b, settings),
            lambda: _by_scipy(a, b, settings, theirs.tol),
        )
    row = (f"{name[:16]:16} {method:9} {preconditioner:7} {mine.status:16} "
           f"{mine.iterations:5d} {reached:9.1e} {1e3 * ours:8.1f}")  # fmt: skip
    if theirs.x is None:
        print(f"{row}  {theirs.status:>8}")
        return None
    far = _relative(a, theirs.x, b)
    row += f"  {theirs.iterations:8d} {far:9.1e} {1e3 * others:8.1f}"
    both = all(one <= SLACK * RTOL for one in (reached, far))  # a NaN is not
    if not both or not ours:
        print(row)
        return None
    print(f"{row} {others / ours:6.2f}")
    return others / ours


def _timed(*runs: Callable[[], Any]) -> list[float]:
    """Median seconds of each, run in turns."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, noted in zip(runs, seconds, strict=True):
            began = time.perf_counter()
            run()
            noted.append(time.perf_counter() - began)
    return [statistics.median(noted) for noted in seconds]


def _solved(operator: MatrixOperator, b: Any, settings: SolveSettings) -> Answer:
    done = Solve(operator, b, settings=settings).step()
    assert isinstance(done, Done)
    (outcome,) = done.outcomes
    return Answer(done.x, outcome.iterations, outcome.status)


def _best_of_scipy(a: Any, b: Any, settings: SolveSettings) -> Answer:
    """Of the loosest tolerance by which it reaches ours, if any does."""
    for tol in TIGHTER:
        found = _by_scipy(a, b, settings, tol)
        if found.x is None or _relative(a, found.x, b) <= SLACK * RTOL:
            return found
    return _by_scipy(a, b, settings, RTOL)


def _by_scipy(a: Any, b: Any, settings: SolveSettings, tol: float) -> Answer:
    count: list[int] = []
    if settings.preconditioner == "ic0":
        return Answer(None, 0, "has none")
    try:
        m = _preconditioner(a, settings.preconditioner)
        x = PEERS[settings.method](a, b, m, tol, lambda *_: count.append(1))
    except RuntimeError:  # SuperLU's word for it
        return Answer(None, 0, "singular")
    except ValueError as error:  # of minres, of a matrix that is not definite
        return Answer(None, 0, str(error)[:20])
    return Answer(x, len(count), tol=tol)


def _preconditioner(a: Any, name: str) -> Any:
    if name == "jacobi":
        diagonal = a.diagonal()
        return scipy.sparse.diags_array(1 / np.where(diagonal == 0, 1, diagonal))
    if name == "ilu0":
        return spla.LinearOperator(a.shape, spla.spilu(a.tocsc()).solve)
    return None


def _relative(a: Any, x: Any, b: Any) -> float:
    return float(np.linalg.norm(b - a @ x) / np.linalg.norm(b))
