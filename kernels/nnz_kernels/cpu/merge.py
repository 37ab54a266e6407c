"""Kernels that go along the rows of sparse matrices: sums, transposes, triangles."""

from __future__ import annotations

import numba
import numpy as np

from nnz_kernels.cpu._runtime import PARALLEL, SERIAL
from nnz_kernels.cpu._sparse_types import entry


@numba.njit(**SERIAL)
def _boundary(first, second, chunk, chunks):  # type: ignore[no-untyped-def]
    """Return the first row of a chunk; work is entries of both matrices, plus rows."""
    rows = first.size - 1
    total = np.int64(first[rows]) + np.int64(second[rows]) + rows
    target = total * chunk // chunks
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        if np.int64(first[middle]) + np.int64(second[middle]) + middle < target:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(**PARALLEL)
def count_union(aptr, aidx, bptr, bidx, out, chunks):  # type: ignore[no-untyped-def]
    """Count the columns that are in either of two sorted rows."""
    for c in numba.prange(chunks):
        stop = _boundary(aptr, bptr, c + 1, chunks)
        for i in range(_boundary(aptr, bptr, c, chunks), stop):
            p, p_end = np.uint64(aptr[i]), np.uint64(aptr[i + 1])
            q, q_end = np.uint64(bptr[i]), np.uint64(bptr[i + 1])
            both = 0
            while p < p_end and q < q_end:
                left, right = aidx[p], bidx[q]
                both += left == right
                p += np.uint64(left <= right)
                q += np.uint64(right <= left)
            total = np.int64(aptr[i + 1]) - aptr[i] + np.int64(bptr[i + 1]) - bptr[i]
            out[i + 1] = total - both


@numba.njit(**PARALLEL)
def fill_union(  # type: ignore[no-untyped-def]
    alpha, aptr, aidx, adata, beta, bptr, bidx, bdata, optr, oidx, odata, chunks
):
    """Add the entries of two sorted rows up, scaled; *alpha* and *beta* hold one."""
    left, right = alpha[0], beta[0]
    for c in numba.prange(chunks):
        stop = _boundary(aptr, bptr, c + 1, chunks)
        for i in range(_boundary(aptr, bptr, c, chunks), stop):
            p, p_end = np.uint64(aptr[i]), np.uint64(aptr[i + 1])
            q, q_end = np.uint64(bptr[i]), np.uint64(bptr[i + 1])
            for at in range(optr[i], optr[i + 1]):
                take_a = p < p_end and (q == q_end or aidx[p] <= bidx[q])
                take_b = q < q_end and (p == p_end or bidx[q] <= aidx[p])
                if take_a and take_b:
                    oidx[at] = aidx[p]
                    odata[at] = left * adata[p] + right * bdata[q]
                elif take_a:
                    oidx[at] = aidx[p]
                    odata[at] = left * adata[p]
                else:
                    oidx[at] = bidx[q]
                    odata[at] = right * bdata[q]
                p += np.uint64(take_a)
                q += np.uint64(take_b)


@numba.njit(**PARALLEL)
def transpose_rows(indptr, indices, data, places, optr, oidx, odata):  # type: ignore[no-untyped-def]
    """Sort entries by column, stably: count, add up, put.

    Each row of *places* (chunks, columns), zeros at first, is a thread's.
    """
    chunks, columns = places.shape
    for c in numba.prange(chunks):
        start = _boundary(indptr, indptr, c, chunks)
        stop = _boundary(indptr, indptr, c + 1, chunks)
        for p in range(indptr[start], indptr[stop]):
            places[c, np.uint64(indices[np.uint64(p)])] += 1
    total = np.int64(0)
    for j in range(columns):  # where each chunk puts the entries of a column
        optr[j] = total
        for c in range(chunks):
            count = places[c, j]
            places[c, j] = total
            total += count
    optr[columns] = total
    for c in numba.prange(chunks):
        start = _boundary(indptr, indptr, c, chunks)
        stop = _boundary(indptr, indptr, c + 1, chunks)
        for i in range(start, stop):
            for p in range(indptr[i], indptr[i + 1]):
                column = np.uint64(indices[np.uint64(p)])
                put = np.uint64(places[c, column])
                places[c, column] += 1
                oidx[put] = i
                odata[put] = data[np.uint64(p)]


@numba.njit(**SERIAL)
def _solve(indptr, indices, data, x, lower, unit, first, last):  # type: ignore[no-untyped-def]
    """Solve for the columns ``first..last`` in place; return a bad row, or -1."""
    n = indptr.size - 1
    one, nothing = data.dtype.type(1), data.dtype.type(0)
    for step in range(n):
        i = step if lower else n - 1 - step
        pivot = one if unit else nothing
        for p in range(indptr[i], indptr[i + 1]):
            j = np.int64(indices[np.uint64(p)])
            value = data[np.uint64(p)]
            if j == i:
                if not unit:
                    pivot = value
            elif (j < i) == lower:
                for k in range(first, last):
                    x[i, k] -= value * x[j, k]
        if pivot == nothing:
            return i
        for k in range(first, last):
            x[i, k] /= pivot
    return -1


@numba.njit(**PARALLEL)
def solve_triangle(indptr, indices, data, x, lower, unit, bad):  # type: ignore[no-untyped-def]
    """Solve in place for x (n, k); *bad* gets a row without a pivot, or -1, a chunk."""
    chunks, width = bad.size, x.shape[1]
    for c in numba.prange(chunks):
        first, last = width * c // chunks, width * (c + 1) // chunks
        bad[c] = _solve(indptr, indices, data, x, lower, unit, first, last)


@numba.njit(**PARALLEL)
def dots_on_pattern(indptr, indices, x, y, out, chunks):  # type: ignore[no-untyped-def]
    """Multiply rows of x (m, k) and y (n, k) at each entry of a pattern."""
    for c in numba.prange(chunks):
        start = _boundary(indptr, indptr, c, chunks)
        stop = _boundary(indptr, indptr, c + 1, chunks)
        for i in range(start, stop):
            for p in range(indptr[i], indptr[i + 1]):
                j = np.uint64(indices[np.uint64(p)])
                total = out.dtype.type(0)
                for k in range(x.shape[1]):
                    total += x[np.uint64(i), np.uint64(k)] * y[j, np.uint64(k)]
                out[np.uint64(p)] = total


ENTRIES = (
    entry(count_union, "iiiiLN"),
    entry(fill_union, "fiiffiifLifN"),
    entry(transpose_rows, "iifMiif"),
    entry(solve_triangle, "iifFBBL"),
    entry(dots_on_pattern, "iiFFfN"),
)
