"""Systems that the tests of the linear solvers share."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from nnz_kernels.convert import csr_from_dense, csr_from_scipy
from nnz_service.algebra.krylov import Done, Outcome, Solve
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.solving import METHODS, SolveSettings


def poisson(n: int) -> Any:
    """Return the five-point Laplacian of an n x n grid, SPD."""
    line = scipy.sparse.diags_array([-1.0, 2, -1], offsets=[-1, 0, 1], shape=(n, n))
    unit = scipy.sparse.eye_array(n)
    return (scipy.sparse.kron(line, unit) + scipy.sparse.kron(unit, line)).tocsr()


def convection(n: int) -> Any:
    """Return the same with a wind: not symmetric."""
    wind = scipy.sparse.diags_array([-0.4, 0.4], offsets=[-1, 1], shape=(n, n))
    return (poisson(n) + scipy.sparse.kron(wind, scipy.sparse.eye_array(n))).tocsr()


def indefinite(n: int) -> Any:
    """Return the Laplacian shifted into its spectrum: symmetric, indefinite."""
    return (poisson(n) - 0.7 * scipy.sparse.eye_array(n * n)).tocsr()


def tall(m: int, n: int) -> Any:
    """Return a rectangular matrix of full rank."""
    a = scipy.sparse.random_array((m, n), density=0.1, rng=11)
    return (a + scipy.sparse.eye_array(m, n)).tocsr()


#: What each method is for.
SUITED = {
    "cg": poisson(19),
    "minres": indefinite(19),
    "bicgstab": convection(19),
    "gmres": convection(19),
    "lsqr": convection(9),
    "direct": convection(19),
}

#: Every method with each of its preconditioners, where the pair is of use.
PAIRS = [
    (method, preconditioner)
    for method, allowed in METHODS.items()
    for preconditioner in allowed
    if (method, preconditioner)
    not in {("minres", "ic0"), ("bicgstab", "ic0"), ("gmres", "ic0")}
]


def operator(a: Any, dtype: Any = np.float64) -> MatrixOperator:
    return MatrixOperator(csr_from_scipy(a.astype(dtype)), threads=1)


def dense(rows: Any) -> MatrixOperator:
    return MatrixOperator(csr_from_dense(np.array(rows, np.float64)), "reference")


def right(a: Any, *k: int) -> Any:
    return np.random.default_rng(8).standard_normal((a.shape[0], *k))


def solved(a: MatrixOperator, b: Any, x0: Any = None, **settings: Any) -> Done:
    """Run a solve to its end."""
    done = Solve(a, np.asarray(b, float), x0, SolveSettings(**settings)).step()
    assert isinstance(done, Done)
    return done


def only(done: Done) -> Outcome:
    """The outcome of the one right-hand side."""
    (outcome,) = done.outcomes
    return outcome
