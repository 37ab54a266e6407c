"""Rows of a sparse matrix times a vector, and how rows are shared out."""

from __future__ import annotations

import numba
import numpy as np

from nnz_kernels.cpu._prefetch import prefetch
from nnz_kernels.cpu._runtime import PARALLEL, SERIAL

#: Entries that take as long as it does to begin a row whose length was not foreseen.
ROW_WORK = 4

#: Entries from a row to what is asked for as it begins. Processors that foresee a
#: stream stop at the end of a page of 4 KiB, and two streams of several gigabytes a
#: second end one every microsecond.
AHEAD = np.uint64(512)

#: Rows of a chunk that are looked at for whether lengths vary; and rows between two
#: looks, at least: few rows are not worth them.
_LOOKS, _BETWEEN = 64, 16

_ONE, _TWO, _THREE, _FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)


@numba.njit(**SERIAL)
def boundary(indptr, chunk, chunks, row_work=ROW_WORK):  # type: ignore[no-untyped-def]
    """Return the first row of a chunk; work is entries plus rows (merge path)."""
    rows = indptr.size - 1
    target = (indptr[rows] + row_work * rows) * chunk // chunks
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        if indptr[middle] + row_work * middle < target:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(**SERIAL)
def _is_uneven(indptr, start, stop):  # type: ignore[no-untyped-def]
    """Return whether rows differ in length from the next ones, by a look at some."""
    step = (stop - start) // _LOOKS
    if step < _BETWEEN:
        return False
    differ = 0
    for look in range(_LOOKS):
        i = start + look * step
        differ += indptr[i + 1] - indptr[i] != indptr[i + 2] - indptr[i + 1]
    return 4 * differ > _LOOKS


@numba.njit(**SERIAL)
def spmv_rows(indptr, indices, data, x, out, start, stop):  # type: ignore[no-untyped-def]
    if _is_uneven(indptr, start, stop):
        _uneven_rows(indptr, indices, data, x, out, start, stop)
    else:
        _even_rows(indptr, indices, data, x, out, start, stop)


@numba.njit(**SERIAL)
def _even_rows(indptr, indices, data, x, out, start, stop):  # type: ignore[no-untyped-def]
    # Unsigned indices spare numba's test for negative ones, a third of the time; four
    # entries a round spare most of the counting, another quarter.
    p = np.uint64(indptr[start])
    for i in range(start, stop):
        end = np.uint64(indptr[i + 1])
        prefetch(data, p + AHEAD)
        prefetch(indices, p + AHEAD)
        total = out.dtype.type(0)
        while p + _FOUR <= end:
            total += data[p] * x[np.uint64(indices[p])]
            total += data[p + _ONE] * x[np.uint64(indices[p + _ONE])]
            total += data[p + _TWO] * x[np.uint64(indices[p + _TWO])]
            total += data[p + _THREE] * x[np.uint64(indices[p + _THREE])]
            p += _FOUR
        if p + _TWO <= end:
            total += data[p] * x[np.uint64(indices[p])]
            total += data[p + _ONE] * x[np.uint64(indices[p + _ONE])]
            p += _TWO
        if p < end:
            total += data[p] * x[np.uint64(indices[p])]
            p += _ONE
        out[i] = total


@numba.njit(**SERIAL)
def _uneven_rows(indptr, indices, data, x, out, start, stop):  # type: ignore[no-untyped-def]
    # A branch for each step at the end of a row is one that nobody foresees, and costs
    # as much as ten entries. Here a row has one: the last entry of an odd number is
    # computed in any case, from the next row if need be, and zero is added instead: a
    # sum that began with zero is never the negative one that this would change.
    zero = out.dtype.type(0)
    p, last = np.uint64(indptr[start]), np.uint64(data.size - 1)
    for i in range(start, stop):
        end = np.uint64(indptr[i + 1])
        prefetch(data, p + AHEAD)
        prefetch(indices, p + AHEAD)
        total = out.dtype.type(0)
        while p + _TWO <= end:
            total += data[p] * x[np.uint64(indices[p])]
            total += data[p + _ONE] * x[np.uint64(indices[p + _ONE])]
            p += _TWO
        at = min(p, last)
        value = data[at] * x[np.uint64(indices[at])]
        total += value if p < end else zero
        out[i] = total
        p = end


@numba.njit(**PARALLEL)
def spmv_chunks(indptr, indices, data, x, out, chunks):  # type: ignore[no-untyped-def]
    for c in numba.prange(chunks):
        start = boundary(indptr, c, chunks)
        stop = boundary(indptr, c + 1, chunks)
        spmv_rows(indptr, indices, data, x, out, start, stop)
