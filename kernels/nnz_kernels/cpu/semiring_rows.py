"""Kernels of masked products and of products with vectors, over semirings.

Semirings go by their places in `api.semirings.SEMIRINGS`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import PARALLEL, SERIAL


@numba.njit(**SERIAL)
def _times(x, y, semiring):  # type: ignore[no-untyped-def]
    if semiring == 1:
        return x + y
    if semiring == 2:
        return type(x)(1) if x != 0 and y != 0 else type(x)(0)
    return x * y


@numba.njit(**SERIAL)
def _plus(x, y, semiring):  # type: ignore[no-untyped-def]
    """Add; what compares passes a NaN on. Only real numbers are compared."""
    if semiring == 0:
        return x + y
    if semiring == 1:
        return y if y.real < x.real or y != y else x
    return y if y.real > x.real or y != y else x


@numba.njit(**SERIAL)
def _boundary(work, chunk, chunks):  # type: ignore[no-untyped-def]
    """Return the first row of a chunk; *work* rises with every row."""
    target = work[work.size - 1] * chunk // chunks
    low, high = 0, work.size - 1
    while low < high:
        middle = (low + high) // 2
        if work[middle] < target:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(**SERIAL)
def _scatter(  # type: ignore[no-untyped-def]
    aptr, aidx, adata, bptr, bidx, bdata, midx, i, first, last, semiring, places, data,
    found,
):  # fmt: skip
    """Multiply a row as Gustavson does; only what the mask has is kept."""
    for at in range(first, last):
        places[np.uint64(midx[at])] = at
    for p in range(aptr[i], aptr[i + 1]):
        j, factor = np.uint64(aidx[p]), adata[p]
        for q in range(bptr[j], bptr[j + np.uint64(1)]):
            at = places[np.uint64(bidx[q])]
            if first <= at < last:
                product = _times(factor, bdata[q], semiring)
                data[at] = _plus(data[at], product, semiring) if found[at] else product
                found[at] = True


@numba.njit(**SERIAL)
def _gather(  # type: ignore[no-untyped-def]
    aptr, aidx, adata, bptr, bidx, bdata, midx, i, first, last, semiring, places, data,
    found,
):  # fmt: skip
    """Multiply a row with those columns that the mask has; *b* is transposed."""
    start, stop = aptr[i], aptr[i + 1]
    for p in range(start, stop):
        places[np.uint64(aidx[p])] = p
    for at in range(first, last):
        j = np.uint64(midx[at])
        for q in range(bptr[j], bptr[j + np.uint64(1)]):
            p = places[np.uint64(bidx[q])]
            if start <= p < stop:
                product = _times(adata[p], bdata[q], semiring)
                data[at] = _plus(data[at], product, semiring) if found[at] else product
                found[at] = True


@numba.njit(**PARALLEL)
def masked_rows(  # type: ignore[no-untyped-def]
    aptr, aidx, adata, bptr, bidx, bdata, mptr, midx, work, semiring, turned, places,
    data, found,
):  # fmt: skip
    """Compute what a mask wants, and say what of it there is.

    A place tells where in the mask (or in the row of *a*) a column is. It is of the
    row at hand if it lies between the row's pointers, so that nothing is cleared.

    *work* has running sums of what rows take; *turned* says that *b* is transposed and
    products are dots of rows; *places* is -1 everywhere; *data* gets the sums, and
    *found*, False at first, whether anything was added.
    """
    chunks = places.shape[0]
    for c in numba.prange(chunks):
        start, stop = _boundary(work, c, chunks), _boundary(work, c + 1, chunks)
        for i in range(start, stop):
            if turned:
                _gather(
                    aptr, aidx, adata, bptr, bidx, bdata, midx, i, mptr[i],
                    mptr[i + 1], semiring, places[c], data, found,
                )  # fmt: skip
            else:
                _scatter(
                    aptr, aidx, adata, bptr, bidx, bdata, midx, i, mptr[i],
                    mptr[i + 1], semiring, places[c], data, found,
                )  # fmt: skip


@numba.njit(**PARALLEL)
def semiring_rows(ptr, idx, values, x, semiring, out, chunks):  # type: ignore[no-untyped-def]
    """Multiply a matrix with a vector; rows without entries stay as they are."""
    rows = out.size
    for c in numba.prange(chunks):
        for i in range(rows * c // chunks, rows * (c + 1) // chunks):
            for p in range(ptr[i], ptr[i + 1]):
                product = _times(values[p], x[np.uint64(idx[p])], semiring)
                first = p == ptr[i]
                out[i] = product if first else _plus(out[i], product, semiring)


def _entry(function: Any, pattern: str) -> Entry:
    """Describe a kernel; only real entries with 32-bit indices are not rare."""
    found = []
    for i in (types.int32, types.int64):
        for f in (types.float32, types.float64, types.complex128):
            letters = {"i": i[::1], "f": f[::1], "N": types.int64, "B": types.boolean,
                       "L": types.int64[::1], "M": types.int64[:, ::1],
                       "b": types.boolean[::1]}  # fmt: skip
            found.append(tuple(letters[letter] for letter in pattern))
    return Entry(function, tuple(found[:2]), tuple(found[2:]))


ENTRIES = (
    _entry(masked_rows, "iifiifiiLNBMfb"),
    _entry(semiring_rows, "iiffNfN"),
)
