"""Incomplete factorisations and triangular solves, the slow and obvious way."""

from __future__ import annotations

import numpy as np

from nnz_kernels.api.factors import check_square, check_triangle
from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr


def ilu0(a: Csr[HostArray], /) -> tuple[HostArray, int]:
    n = check_square(a)
    rows = [_row(a, i) for i in range(n)]
    for i, row in enumerate(rows):
        for k in [k for k in row if k < i]:
            row[k] = row[k] / rows[k][k]
            for j, value in rows[k].items():
                if j > k and j in row:
                    row[j] -= row[k] * value
        if not _pivot(row[i]):
            return _entries(rows), i
    return _entries(rows), -1


def ic0(lower: Csr[HostArray], /) -> tuple[HostArray, int]:
    n = check_square(lower)
    rows = [_row(lower, i) for i in range(n)]
    for i, row in enumerate(rows):
        for k in [k for k in row if k < i]:
            other = rows[k]
            known = sum(row[j] * other[j] for j in row if j < k and j in other)
            row[k] = (row[k] - known) / other[k]
        square = row[i] - sum(value**2 for j, value in row.items() if j < i)
        if not (square > 0 and np.isfinite(square)):
            return _entries(rows), i
        row[i] = np.sqrt(square)
    return _entries(rows), -1


def solve_triangle(
    strict: Csr[HostArray], diagonal: HostArray, b: HostArray, /, *, upper: bool
) -> HostArray:
    n = check_triangle(strict, diagonal, b)
    x = b.copy()
    for i in reversed(range(n)) if upper else range(n):
        for j, value in _row(strict, i).items():
            x[i] -= value * x[j]
        x[i] /= diagonal[i]
    return x


def _row(a: Csr[HostArray], i: int) -> dict[int, np.float64]:
    """Return the entries of a row by their columns."""
    at = slice(int(a.indptr[i]), int(a.indptr[i + 1]))
    return dict(zip(a.indices[at].tolist(), a.data[at], strict=True))


def _entries(rows: list[dict[int, np.float64]]) -> HostArray:
    return np.array([value for row in rows for value in row.values()], np.float64)


def _pivot(value: np.float64) -> bool:
    return bool(value != 0 and np.isfinite(value))
