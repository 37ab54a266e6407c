"""Incomplete factorisations and triangular solves on the host, one thread each.

A row needs rows before it, and matrices from meshes have hundreds of levels of a few
rows: threads would wait for each other longer than the work takes. Several right-hand
sides go through the triangle together, which reads its entries once.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from nnz_kernels.api.factors import check_square, check_triangle
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import SERIAL, readable
from nnz_kernels.formats import Csr


def ilu0(a: Csr[HostArray], /) -> tuple[HostArray, int]:
    check_square(a)
    data = a.data.copy()
    return data, int(_ilu0(readable(a.indptr), readable(a.indices), data))


def ic0(lower: Csr[HostArray], /) -> tuple[HostArray, int]:
    check_square(lower)
    data = lower.data.copy()
    return data, int(_ic0(readable(lower.indptr), readable(lower.indices), data))


def solve_triangle(
    strict: Csr[HostArray], diagonal: HostArray, b: HostArray, /, *, upper: bool
) -> HostArray:
    check_triangle(strict, diagonal, b)
    x = np.array(b, order="C")
    arrays = readable(strict.indptr), readable(strict.indices), readable(strict.data)
    if x.shape[1] == 1:
        _solve_vector(*arrays, readable(diagonal), x.reshape(-1), upper)
    else:
        _solve_block(*arrays, readable(diagonal), x, upper)
    return x


@numba.njit(**SERIAL)
def _ilu0(indptr, indices, data):  # type: ignore[no-untyped-def]
    """Factor in place; return the first row without a pivot, or -1."""
    n = indptr.size - 1
    place = np.full(n, -1, np.int64)  # of each column in the row at hand
    diagonal = np.zeros(n, np.int64)
    for i in range(n):
        start, stop = np.int64(indptr[i]), np.int64(indptr[i + 1])
        for p in range(start, stop):
            place[indices[p]] = p
        diagonal[i] = place[i]
        for p in range(start, stop):
            k = indices[p]
            if k >= i:
                break
            data[p] /= data[diagonal[k]]
            for q in range(diagonal[k] + 1, np.int64(indptr[k + 1])):
                at = place[indices[q]]
                if at >= 0:
                    data[at] -= data[p] * data[q]
        for p in range(start, stop):
            place[indices[p]] = -1
        pivot = data[diagonal[i]]
        if pivot == 0 or not np.isfinite(pivot):
            return i
    return -1


@numba.njit(**SERIAL)
def _ic0(indptr, indices, data):  # type: ignore[no-untyped-def]
    """Factor in place; return the first row without a positive pivot, or -1."""
    for i in range(indptr.size - 1):
        start, last = np.int64(indptr[i]), np.int64(indptr[i + 1]) - 1
        square = data[last]
        for p in range(start, last):
            k = indices[p]
            mine, other = start, np.int64(indptr[k])
            pivot = np.int64(indptr[k + 1]) - 1
            known = 0.0
            while mine < p and other < pivot:
                if indices[mine] == indices[other]:
                    known += data[mine] * data[other]
                    mine += 1
                    other += 1
                elif indices[mine] < indices[other]:
                    mine += 1
                else:
                    other += 1
            data[p] = (data[p] - known) / data[pivot]
            square -= data[p] * data[p]
        if not (square > 0 and np.isfinite(square)):
            return i
        data[last] = np.sqrt(square)
    return -1


@numba.njit(**SERIAL)
def _solve_vector(indptr, indices, data, diagonal, x, upper):  # type: ignore[no-untyped-def]
    n = x.size
    for step in range(n):
        i = n - 1 - step if upper else step
        value = x[i]
        for p in range(np.int64(indptr[i]), np.int64(indptr[i + 1])):
            value -= data[p] * x[indices[p]]
        x[i] = value / diagonal[i]


@numba.njit(**SERIAL)
def _solve_block(indptr, indices, data, diagonal, x, upper):  # type: ignore[no-untyped-def]
    n, width = x.shape
    for step in range(n):
        i = n - 1 - step if upper else step
        for p in range(np.int64(indptr[i]), np.int64(indptr[i + 1])):
            k = indices[p]
            for j in range(width):
                x[i, j] -= data[p] * x[k, j]
        for j in range(width):
            x[i, j] /= diagonal[i]


def _signatures(letters: str) -> tuple[tuple[Any, ...], ...]:
    """Return argument types: i varies with the type of the indices."""
    f = types.float64
    return tuple(
        tuple(
            {"i": i[::1], "v": f[::1], "m": f[:, ::1], "b": types.boolean}[letter]
            for letter in letters
        )
        for i in (types.int32, types.int64)
    )


ENTRIES = (
    Entry(_ilu0, _signatures("iiv")),
    Entry(_ic0, _signatures("iiv")),
    Entry(_solve_vector, _signatures("iivvvb")),
    Entry(_solve_block, _signatures("iivvmb")),
)
