"""Preconditioners: each turns a block of residuals into a block of corrections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import scipy.sparse

from nnz_kernels.backends import Backend, load_factors
from nnz_kernels.convert import csr_from_scipy, csr_to_scipy
from nnz_kernels.copies import with_room
from nnz_kernels.formats import Csr
from nnz_service.algebra.krylov.errand import Errand
from nnz_service.algebra.krylov.lu import factorize
from nnz_service.algebra.krylov.method import Ended
from nnz_service.algebra.krylov.there import DeviceVector, There
from nnz_service.algebra.krylov.vectors import EPS, Vector
from nnz_service.algebra.operator import MatrixOperator

Block = npt.NDArray[np.float64]

#: Added to the diagonal, relative to it, until IC(0) has only positive pivots; a
#: positive definite matrix may need it (Manteuffel 1980).
SHIFTS = (0.0, 1e-3, 1e-2, 0.1, 1.0)

#: Products of one Chebyshev step.
DEGREE = 4

#: Part of the spectrum that Chebyshev damps: from the largest eigenvalue over this.
SPAN = 30.0


#: Turns a vector on a device into another, or returns it.
Apply = Callable[[DeviceVector], DeviceVector]


class Preconditioner(Protocol):
    """Applies ``M^-1``."""

    def apply(self, block: Block) -> Block:
        """Return ``M^-1 block``: (n, k) C order, or the block itself."""
        ...


@runtime_checkable
class Movable(Preconditioner, Protocol):
    """One that a device can apply as well."""

    def moved(self, there: There, multiply: Apply) -> Apply:
        """Move what it needs to a device.

        Args:
            there: The device.
            multiply: Multiplies with the matrix on it.
        """
        ...


class Identity:
    """No preconditioner."""

    def apply(self, block: Block) -> Block:
        """See `Preconditioner`."""
        return block

    def moved(self, there: There, multiply: Apply) -> Apply:
        """See `Movable`."""
        return lambda x: x


class Scaling:
    """A diagonal, (n,), to multiply with."""

    def __init__(self, factors: Vector) -> None:
        self.factors = factors

    def apply(self, block: Block) -> Block:
        """See `Preconditioner`."""
        scaled: Block = block * self.factors[:, None]
        return scaled

    def moved(self, there: There, multiply: Apply) -> Apply:
        """See `Movable`."""
        factors = there.take(self.factors)
        return lambda x: x * factors


class Triangles:
    """A lower and an upper triangle, solved one after the other."""

    def __init__(
        self,
        backend: Backend,
        lower: tuple[Csr[Any], Vector],
        upper: tuple[Csr[Any], Vector],
    ) -> None:
        self._solve = load_factors(backend).solve_triangle
        self._lower, self._upper = lower, upper

    def apply(self, block: Block) -> Block:
        """See `Preconditioner`."""
        half = self._solve(*self._lower, block, upper=False)
        return self._solve(*self._upper, half, upper=True)

    def moved(self, there: There, multiply: Apply) -> Apply:
        """See `Movable`."""
        move = there.device.to_device

        def both() -> Any:
            parts = self._lower, self._upper
            return [(a.map(move), move(diagonal)) for a, diagonal in parts]

        (low, left), (high, right) = with_room(both)
        solve = there.ops.solve_triangle

        def apply(x: DeviceVector) -> DeviceVector:
            column = x.array.reshape(x.size, 1)
            half = with_room(lambda: solve(low, left, column, upper=False))
            whole = with_room(lambda: solve(high, right, half, upper=True))
            return DeviceVector(there, whole.reshape(x.size))

        return apply


class Chebyshev:
    """A few steps of Chebyshev iteration on ``D^-1 A`` (Saad 2003, algorithm 12.1).

    Its largest eigenvalue is taken from the circles of Gershgorin, a bound that no
    positive definite matrix passes; the polynomial is then positive.
    """

    def __init__(self, a: MatrixOperator, diagonal: Vector, largest: float) -> None:
        self._a = a
        self._inverse = 1.0 / diagonal[:, None]
        low = largest / SPAN
        self._theta, self._delta = (largest + low) / 2, (largest - low) / 2

    def apply(self, block: Block) -> Block:
        """See `Preconditioner`."""
        found: Block = self._steps(block, self._inverse, self._a.spmm)
        return found

    def moved(self, there: There, multiply: Apply) -> Apply:
        """See `Movable`."""
        inverse = there.take(self._inverse[:, 0].copy())
        return lambda x: self._steps(x, inverse, multiply)

    def _steps(self, x: Any, inverse: Any, multiply: Callable[[Any], Any]) -> Any:
        """Go through the steps: on a block of the host, or a vector of a device."""
        sigma = self._theta / self._delta
        rho = 1 / sigma
        r = inverse * x
        d = r / self._theta
        z = d.copy()
        for _ in range(DEGREE - 1):
            r -= inverse * multiply(d)
            rho_before, rho = rho, 1 / (2 * sigma - rho)
            d = rho * rho_before * d + (2 * rho / self._delta) * r
            z += d
        return z


def prepare(
    name: str, a: MatrixOperator, method: str, errand: Errand
) -> Preconditioner:
    """Make a preconditioner of a float64 matrix; takes as long as it takes.

    Raises:
        Ended: This matrix has none of this kind, or nobody waits for it any more.
    """
    if method == "direct":
        return factorize(a, errand=errand)
    with errand.at_work():
        if method == "lsqr" and name == "jacobi":
            return _columns(a)
        return _MAKERS[name](a, method)


def diagonal_of(a: Csr[Any]) -> Vector:
    """Return the diagonal; duplicates are added up."""
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    on = rows == a.indices
    out: Vector = np.zeros(a.shape[0])
    np.add.at(out, rows[on], a.data[on])
    return out


def _jacobi(a: MatrixOperator, method: str) -> Preconditioner:
    diagonal = diagonal_of(a.matrix)
    if method in ("cg", "minres"):
        _check_positive(diagonal)
    if not diagonal.all():
        at = int(np.argmin(diagonal != 0))
        raise Ended("breakdown", f"jacobi cannot divide by the diagonal entry {at}: 0")
    return Scaling(1.0 / diagonal)


def _columns(a: MatrixOperator) -> Preconditioner:
    """Return the inverse norms of the columns; an empty column stays as it is."""
    squares = np.bincount(
        a.matrix.indices, weights=a.matrix.data**2, minlength=a.shape[1]
    )
    norms = np.sqrt(squares)
    return Scaling(1.0 / np.where(norms > 0, norms, 1.0))


def _ilu0(a: MatrixOperator, _method: str) -> Preconditioner:
    full = csr_from_scipy(_with_diagonal(a.matrix))
    entries, failed = load_factors(a.backend).ilu0(full)
    if failed >= 0:
        raise Ended("breakdown", f"ilu0 has no pivot in row {failed}")
    factors = csr_to_scipy(replace(full, data=entries))
    ones = np.ones(full.shape[0])
    lower, upper = _part(factors, "lower"), _part(factors, "upper")
    return Triangles(a.backend, (lower, ones), (upper, factors.diagonal()))


def _ic0(a: MatrixOperator, _method: str) -> Preconditioner:
    diagonal = diagonal_of(a.matrix)
    _check_positive(diagonal)
    lower = csr_from_scipy(
        scipy.sparse.csr_array(
            scipy.sparse.tril(_with_diagonal(a.matrix), format="csr")
        )
    )
    ends = np.asarray(lower.indptr[1:]) - 1
    for shift in SHIFTS:
        data = lower.data.copy()
        data[ends] = diagonal * (1 + shift)
        entries, failed = load_factors(a.backend).ic0(replace(lower, data=data))
        if failed < 0:
            break
    else:
        raise Ended("not_spd", f"ic0 has no positive pivot in row {failed}")
    factor = csr_to_scipy(replace(lower, data=entries))
    pivots = entries[ends]
    turned = scipy.sparse.csr_array(factor.T)
    return Triangles(
        a.backend, (_part(factor, "lower"), pivots), (_part(turned, "upper"), pivots)
    )


def _chebyshev(a: MatrixOperator, _method: str) -> Preconditioner:
    diagonal = diagonal_of(a.matrix)
    _check_positive(diagonal)
    magnitude = a.with_matrix(replace(a.matrix, data=np.abs(a.matrix.data)))
    bound = magnitude.spmv(np.ones(a.shape[0])) / diagonal
    return Chebyshev(a, diagonal, max(float(bound.max(initial=0.0)), EPS))


def _check_positive(diagonal: Vector) -> None:
    if not (diagonal > 0).all():
        at = int(np.argmin(diagonal > 0))
        raise Ended("not_spd", f"the diagonal entry {at} is not positive")


def _with_diagonal(a: Csr[Any]) -> Any:
    """Return the matrix with sorted rows that all store their diagonal."""
    n = a.shape[0]
    coo = csr_to_scipy(a).tocoo()
    row = np.concatenate([coo.row, np.arange(n)])
    column = np.concatenate([coo.col, np.arange(n)])
    data = np.concatenate([coo.data, np.zeros(n)])
    found = scipy.sparse.coo_array((data, (row, column)), shape=a.shape).tocsr()
    found.sum_duplicates()
    return found


def _part(factor: Any, which: str) -> Csr[Any]:
    """Return the strict triangle, rows sorted."""
    cut = scipy.sparse.tril(factor, -1) if which == "lower" else (
        scipy.sparse.triu(factor, 1)
    )  # fmt: skip
    found = scipy.sparse.csr_array(cut)
    found.sort_indices()
    return csr_from_scipy(found)


_MAKERS: dict[str, Callable[[MatrixOperator, str], Preconditioner]] = {
    "none": lambda _a, _method: Identity(),
    "jacobi": _jacobi,
    "ilu0": _ilu0,
    "ic0": _ic0,
    "chebyshev": _chebyshev,
}
