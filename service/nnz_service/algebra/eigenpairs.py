"""Eigenpairs of symmetric matrices, as a resumable state machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nnz_kernels.backends import load_sparse
from nnz_service.algebra.krylov.vectors import Vector, norm
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import ImpossibleError, InvalidMatrixError

Arrays = dict[str, npt.NDArray[Any]]
Which = Literal["largest", "smallest", "magnitude"]

#: Bytes that the basis may take.
MAX_BASIS = 4 << 30

#: Relative difference of an entry and its mirror image that still counts as none.
ASYMMETRY = 1e-10

#: Relative residual below which none can be asked for: rounding makes as much.
LEAST = 1e-13

#: Multiplications of one block of a basis that is turned.
_BLOCK = 10_000_000

#: How it ends that was not to go on: why.
_ENDS = ("breakdown", "iteration_limit", "time_limit")
_TIME = 2

#: Norm, relative to that of the matrix, of a vector that is all rounding.
_NOTHING = 1e-14

#: Of the residual that is asked for, what pairs may have while they are looked for: a
#: start anew loses sight of it.
_MARGIN = 0.5


def basis_size(n: int, k: int) -> int:
    """Return how many vectors are kept for k pairs of n rows."""
    return min(n, max(2 * k + 10, 20))


class Eigenpairs:
    """The k largest or smallest eigenvalues, with orthonormal eigenvectors.

    Lanczos with thick restarts (Wu and Simon 2000) and two full orthogonalisations a
    product. A pair has converged when ``||A x - lambda x|| <= tol ||A||``, computed
    from the definition; of ``||A||`` the largest Ritz value is taken. A round is one
    product, or one block of a restart.

    One vector has a part in each eigenspace, and its products stay in that plane: of an
    eigenvalue that occurs several times it finds one. So what has converged is kept and
    the search begins anew with another vector, until that finds nothing more.

    Args:
        a: In float64, symmetric.
        k: Pairs; 1 to n.
        which: Largest or smallest values, or those of largest magnitude.
        tol: See above.
        maxiter: Products at most; looked at before each restart. None means
            ``max(1000, 10 n)``.
        state: To go on from.

    Raises:
        InvalidMatrixError: The matrix is not symmetric.
        ImpossibleError: There are not so many pairs, or they take too much memory.
    """

    def __init__(
        self,
        a: MatrixOperator,
        k: int,
        which: Which = "largest",
        tol: float = 1e-8,
        maxiter: int | None = None,
        state: Arrays | None = None,
    ) -> None:
        n = a.shape[0]
        if not 1 <= k <= n:
            raise ImpossibleError(f"k is {k}, but must be from 1 to {n}")
        self._size = basis_size(n, k)
        nbytes = 8 * n * (self._size + 1)
        if nbytes > MAX_BASIS:
            raise ImpossibleError(
                f"{k} eigenpairs of {n} rows take {nbytes} bytes; the limit is "
                f"{MAX_BASIS}"
            )
        _check_symmetric(a)
        # A power of two, so that no square overflows and no digit is lost.
        largest = float(np.abs(a.matrix.data).max(initial=0.0))
        self._unit = float(2.0 ** (np.frexp(largest)[1] - 1)) if largest else 1.0
        scaled = replace(a.matrix, data=a.matrix.data / self._unit)
        self._a = a.with_matrix(scaled)
        self._k, self._which, self._tol = k, which, max(tol, LEAST)
        self._maxiter = maxiter or max(1000, 10 * n)
        self._status = ""
        if state is None:
            self._begin(n)
        else:
            self._resume(state)

    def _begin(self, n: int) -> None:
        size = self._size
        self._basis: Vector = np.zeros((size + 1, n))
        start = np.random.default_rng(0).standard_normal((n,))
        self._basis[0] = start / norm(start)
        self._small: Vector = np.zeros((size, size))
        self._turn: Vector = np.zeros((size, 0))
        self._values: Vector = np.zeros(0)
        self._residuals: Vector = np.zeros(0)
        #: Vectors that were multiplied; products; columns that are turned; whether
        #: what is turned is the answer; whether because products (1) or the time (2)
        #: are over; whether the search begins anew; whether it found nothing more.
        self._held = self._products = self._column = self._last = self._late = 0
        self._anew = self._sure = 0
        #: Values that were there when the search began anew.
        self._found: Vector = np.zeros(0)
        self._norm = 0.0

    def round(self) -> bool:
        """See `Course`."""
        if self._turn.size:
            self._turn_block()
        elif self._last:
            self._measure()
        else:
            self._multiply()
        return bool(self._status)

    def cut(self) -> None:
        """Make an end: the rounds to come turn to the pairs at hand and measure them.

        The status is then ``time_limit``, unless they are good enough; there are fewer
        pairs than asked for where there were fewer products.
        """
        if self._late:
            return
        if not self._turn.size and not self._last:
            sure = self._sure  # half a basis tells nothing of what may be missing
            self._look(0.0)
            self._sure, self._residuals = sure, np.zeros(0)
        self._late, self._last, self._anew = _TIME, 1, 0

    def progress(self) -> dict[str, Any]:
        """See `Course`."""
        worst = float(self._residuals.max()) if self._residuals.size else None
        return {
            "iterations": self._products,
            "converged": int(np.count_nonzero(self._residuals <= self._goal)),
            "of": self._k,
            "residual": None if worst is None else worst * self._unit,
            "target": self._goal * self._unit,
        }

    def state(self) -> Arrays:
        """See `Course`."""
        counts = [self._held, self._products, self._column, self._last, self._late]
        counts += [self._anew, self._sure]
        return {
            "basis": self._basis.copy(),
            "small": self._small.copy(),
            "turn": self._turn.copy(),
            "values": self._values.copy(),
            "residuals": self._residuals.copy(),
            "counts": np.array(counts, np.int64),
            "found": self._found.copy(),
            "norm": np.array(self._norm),
        }

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Course`; vectors are columns (n, k), in the order of the values."""
        arrays = {
            "eigenvalues": self._values[: self._pairs] * self._unit,
            "eigenvectors": np.ascontiguousarray(self._basis[: self._pairs].T),
            "residuals": self._residuals * self._unit,
        }
        return {"status": self._status, "which": self._which} | self.progress(), arrays

    @property
    def _pairs(self) -> int:
        """How many there are, of k."""
        return min(self._k, self._values.size)

    @property
    def _goal(self) -> float:
        return self._tol * self._norm

    def _resume(self, state: Arrays) -> None:
        self._basis, self._small = state["basis"].copy(), state["small"].copy()
        self._turn, self._values = state["turn"].copy(), state["values"].copy()
        self._residuals, self._norm = state["residuals"].copy(), float(state["norm"])
        # An earlier version did not begin anew, and had neither of the last two.
        counts = [*state["counts"].tolist(), 0, 0]
        self._held, self._products, self._column, self._last, self._late = counts[:5]
        self._anew, self._sure = counts[5:7]
        self._found = state.get("found", np.zeros(0)).copy()

    def _multiply(self) -> None:
        """Add a vector to the basis; a full one is looked at."""
        j = self._held
        known = self._basis[: j + 1]
        w = self._a.spmv(self._basis[j])
        first = _project(known, w)
        second = _project(known, w)
        row = first + second
        self._small[j, : j + 1] = self._small[: j + 1, j] = row
        self._norm = max(self._norm, float(np.abs(row).max()))
        length = norm(w)
        self._products += 1
        self._held = j + 1
        if length <= _NOTHING * self._norm:
            length = 0.0
            w = self._fresh(j + 1)
        else:
            w = w / length
        self._basis[j + 1] = w
        if self._held == self._size:
            self._look(length)

    def _fresh(self, count: int) -> Vector:
        """Return a unit vector orthogonal to the basis; zero where that is complete."""
        n = self._basis.shape[1]
        if count >= n:
            return np.zeros(n)
        w = np.random.default_rng(self._products).standard_normal((n,))
        for _ in range(3):
            _project(self._basis[:count], w)
            w /= norm(w)
        return w

    def _look(self, length: float) -> None:
        """Take the Ritz pairs of the basis, and begin to turn it towards them."""
        values, vectors = np.linalg.eigh(self._small[: self._held, : self._held])
        order = _ordered(values, self._which)
        self._norm = float(np.abs(values).max(initial=0.0))
        residuals = np.abs(length * vectors[-1, order])
        self._residuals = residuals[: self._k]
        self._late = int(self._products >= self._maxiter)
        self._judge(values[order], residuals)
        done = self._last or self._anew
        spare = 0 if done else (self._size - self._k) // 2
        order = order[: min(self._k + spare, self._held)]
        self._turn = np.ascontiguousarray(vectors[:, order])
        self._values, self._column = values[order], 0

    def _judge(self, values: Vector, residuals: Vector) -> None:
        """Decide whether to go on, to begin anew, or to end."""
        k = self._k
        good = bool((self._residuals <= _MARGIN * self._goal).all())
        if self._size == self._basis.shape[1]:
            self._sure = 1  # the basis is complete
        elif good and not self._sure and self._is_settled(values, residuals):
            same = self._found.size and np.allclose(
                values[:k], self._found, rtol=0, atol=2 * self._goal
            )
            self._sure = int(same)
            self._anew = int(not same and not self._late)
            self._found = values[:k].copy()
        self._last = int((good and self._sure) or self._late)

    def _is_settled(self, values: Vector, residuals: Vector) -> bool:
        """Whether the best of the others is known well enough to be none of ours."""
        if not self._found.size:
            return True
        if values.size <= self._k:
            return False
        k, key = self._k, np.abs if self._which == "magnitude" else np.asarray
        gap = float(abs(key(values[k - 1]) - key(values[k])))
        return bool(residuals[k] <= max(self._goal, gap / 2))

    def _turn_block(self) -> None:
        """Turn some columns of the basis; after the last ones go on from there."""
        size, kept = self._turn.shape
        n = self._basis.shape[1]
        width = max(1, _BLOCK // (size * kept))
        part = slice(self._column, min(n, self._column + width))
        self._basis[:kept, part] = self._turn.T @ self._basis[:size, part]
        self._column = part.stop
        if self._column < n:
            return
        self._basis[kept] = self._fresh(kept) if self._anew else self._basis[size]
        self._anew = 0
        self._small[:] = 0
        self._small[np.arange(kept), np.arange(kept)] = self._values
        self._held, self._turn = kept, np.zeros((size, 0))
        if self._last:
            self._residuals = np.zeros(0)

    def _measure(self) -> None:
        """Compute the residual of one more pair; judge them all after the last."""
        i = self._residuals.size
        x = self._basis[i]
        residual = norm(self._a.spmv(x) - self._values[i] * x)
        self._residuals = np.append(self._residuals, residual)
        if i + 1 < self._pairs:
            return
        whole = self._sure and self._pairs == self._k
        if whole and (self._residuals <= self._goal).all():
            self._status = "converged"
        elif self._late or self._k == self._size:
            self._status = _ENDS[self._late]
        else:
            self._last = 0


def _project(basis: Vector, w: Vector) -> Vector:
    """Take off *w*, in place, what the basis has of it; return how much.

    Not BLAS: see `krylov.vectors.dot`.
    """
    parts: Vector = np.einsum("ij,j->i", basis, w)
    w -= np.einsum("i,ij->j", parts, basis)
    return parts


def _ordered(values: Vector, which: Which) -> npt.NDArray[np.intp]:
    if which == "smallest":
        return np.argsort(values, kind="stable")
    key = np.abs(values) if which == "magnitude" else values
    return np.argsort(-key, kind="stable")


def _check_symmetric(a: MatrixOperator) -> None:
    ops, matrix = load_sparse(a.backend), a.matrix
    turned = ops.transpose(matrix, threads=a.threads)
    apart = ops.norm(ops.add(0.5, matrix, -0.5, turned, threads=a.threads), "max")
    if apart > ASYMMETRY * ops.norm(matrix, "max"):
        raise InvalidMatrixError(
            f"the matrix is not symmetric: an entry and its mirror image differ by "
            f"{2 * apart:g}"
        )
