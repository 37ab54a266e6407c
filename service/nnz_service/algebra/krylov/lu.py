"""LU factors of a sparse matrix, by SuperLU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import load_sparse
from nnz_kernels.convert import csr_to_scipy
from nnz_kernels.formats import Csr
from nnz_service import usage
from nnz_service.algebra.krylov.errand import Errand
from nnz_service.algebra.krylov.lu_process import factors_apart
from nnz_service.algebra.krylov.method import Ended
from nnz_service.algebra.operator import MatrixOperator

Block = npt.NDArray[np.float64]

#: Bytes of an entry: its value and an index.
_ENTRY = 12
#: Bytes of the fullest factors that are made in this process: SuperLU cannot be stopped
#: there, and those of a dense matrix of so many take about a second.
_BOUNDED = 1 << 25
#: Bytes that making factors may take; or half of the memory there is, if that is less.
MAX_MEMORY = 8 << 30


class LuFactors:
    """Factors with rows exchanged for stability and columns ordered for little fill.

    Args:
        solve: Applies both of them to (n, k).
        entries: Stored in both triangles.
        n: Rows.

    Attributes:
        nbytes: About what they take: values of 8 bytes, indices of 4.
    """

    def __init__(self, solve: Callable[[Block], Block], entries: int, n: int) -> None:
        self._solve = solve
        self.entries = entries
        self.nbytes = _ENTRY * entries + 32 * n

    def apply(self, block: Block) -> Block:
        """Return ``A^-1 block``, (n, k), up to rounding errors."""
        return np.ascontiguousarray(self._solve(block))


def factorize(
    a: MatrixOperator, limit: int | None = None, errand: Errand | None = None
) -> LuFactors:
    """Factor a square float64 matrix; takes as long as it takes, without the GIL.

    Demmel, Eisenstat, Gilbert, Li and Liu 1999, as SciPy has it, with COLAMD. Nobody
    knows before how much the factors fill; where full ones would be large they are made
    by a process that may not take more than *limit* bytes, and ends when nobody waits
    for the *errand* any more.

    Raises:
        Ended: It is singular, the factors do not fit the memory, or nobody waits.
    """
    n = a.shape[0]
    if n == 0:
        return LuFactors(lambda block: block, 0, 0)
    if limit is not None or _ENTRY * n * n > _BOUNDED:
        return _split(a, factors_apart(a.matrix, limit or _memory(), errand))
    columns = scipy.sparse.csc_array(csr_to_scipy(a.matrix))
    try:
        with (errand or Errand()).at_work():
            made = scipy.sparse.linalg.splu(columns)
    except RuntimeError as error:
        raise Ended("singular", f"SuperLU: {error}") from error
    except MemoryError as error:
        raise Ended("breakdown", "the factors do not fit the memory") from error
    return LuFactors(made.solve, int(made.nnz), n)


def _memory() -> int:
    return min(MAX_MEMORY, usage.memory_limit() // 2)


def _split(a: MatrixOperator, found: dict[str, HostArray]) -> LuFactors:
    """Return factors whose triangles our own kernels solve with."""
    n, ops = a.shape[0], load_sparse(a.backend)
    low, high = (_triangle(found, name, n) for name in "LU")
    rows, columns = found["rows"], found["columns"]

    def solve(block: Block) -> Block:
        moved = np.empty_like(block, order="C")
        moved[rows] = block
        y = ops.triangular_solve(low, moved, unit_diagonal=True, threads=a.threads)
        z: Block = ops.triangular_solve(high, y, lower=False, threads=a.threads)
        return z[columns]

    return LuFactors(solve, low.nnz + high.nnz, n)


def _triangle(found: dict[str, HostArray], name: str, n: int) -> Csr[HostArray]:
    indptr, indices, data = (
        found[f"{name}.{part}"] for part in ("indptr", "indices", "data")
    )
    return Csr(indptr, indices, data, (n, n))
