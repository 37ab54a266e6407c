"""Incomplete factorisations and triangular solves, row by row."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.formats import Csr

A = TypeVar("A")

_FLOAT64 = np.dtype(np.float64)


class FactorOps(Protocol[A]):
    """Factors of square float64 matrices on their own pattern.

    A family beside the table of all back-ends, for solvers alone. Each row waits for
    others: a device wins where many rows wait for the same ones, a host where the rows
    form a chain.

    Raises, all of them: ShapeError for sizes that do not fit; DTypeError for types
    other than float64. The structure is trusted: rows sorted, no column twice.
    """

    def ilu0(self, a: Csr[A], /) -> tuple[A, int]:
        """Return the entries of L and U on the pattern of A, and where it failed.

        L has ones on its diagonal, which are not stored; every row must store its
        diagonal. The second value is the first row whose pivot is zero or not finite,
        -1 when there is none. Saad, Iterative Methods for Sparse Linear Systems (2003),
        algorithm 10.4.
        """
        ...

    def ic0(self, lower: Csr[A], /) -> tuple[A, int]:
        """Return the entries of L with ``L L'`` = A on the pattern of its lower part.

        Args:
            lower: The lower triangle of A; the diagonal is the last entry of each row.

        The second value is the first row whose pivot is not positive, -1 when there is
        none. Meijerink and van der Vorst 1977.
        """
        ...

    def solve_triangle(self, strict: Csr[A], diagonal: A, b: A, /, *, upper: bool) -> A:
        """Return x with ``(strict + diag(diagonal)) x = b``: b (n, k), x fresh.

        Each column has the bits that it would have alone.

        Args:
            strict: Entries left of the diagonal, or right of it when `upper`.
            diagonal: (n,), without zeros.
            b: C order.
            upper: Begin with the last row.
        """
        ...


def check_square(a: Csr[Any]) -> int:
    """Return n, or raise ShapeError or DTypeError."""
    if a.shape[0] != a.shape[1]:
        raise ShapeError(f"the matrix has shape {a.shape}, but must be square")
    if a.data.dtype != _FLOAT64:
        raise DTypeError(f"the matrix holds {a.data.dtype}, but must hold float64")
    return int(a.shape[0])


def check_triangle(strict: Csr[Any], diagonal: Any, b: Any) -> int:
    """Return n, or raise ShapeError or DTypeError."""
    n = check_square(strict)
    if diagonal.shape != (n,) or b.ndim != 2 or b.shape[0] != n:
        raise ShapeError(
            f"the diagonal has shape {diagonal.shape} and b {b.shape}, but must have "
            f"({n},) and ({n}, k)"
        )
    if diagonal.dtype != _FLOAT64 or b.dtype != _FLOAT64:
        raise DTypeError(
            f"the diagonal holds {diagonal.dtype} and b {b.dtype}, but must be float64"
        )
    return n
