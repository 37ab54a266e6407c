"""Products on the host: runs of rows with equal work, one thread each.

A row is never shared between threads, so its entries are added in stored order. The
transposed products scatter: a number of accumulators that depends on the matrix alone
is filled in parallel and added up in a fixed order.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from nnz_kernels.api.products import check_product
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import ORDERED, PARALLEL, SERIAL, readable, thread_count
from nnz_kernels.formats import Csr

#: Entries a column that pay for one more accumulator: filling and adding one up moves
#: three values a column, scattering moves about one an entry.
ENTRIES_A_PART = 3

#: Accumulators at most; each takes as much memory as the result.
MAX_PARTS = 8


def spmv(
    a: Csr[HostArray], x: HostArray, /, *, threads: int | None = None
) -> HostArray:
    rows = check_product(a, x, ndim=1, transposed=False)
    out = np.empty(rows, x.dtype)
    chunks = thread_count(threads, a.nnz)
    if chunks == 1:
        _spmv(*_arrays(a), readable(x), out, 0, rows)
    else:
        _spmv_chunks(*_arrays(a), readable(x), out, chunks)
    return out


def spmm(
    a: Csr[HostArray], x: HostArray, /, *, threads: int | None = None
) -> HostArray:
    rows = check_product(a, x, ndim=2, transposed=False)
    if x.shape[1] == 1:
        return spmv(a, x[:, 0], threads=threads)[:, None]
    out = np.empty((rows, x.shape[1]), x.dtype)
    chunks = thread_count(threads, a.nnz * x.shape[1])
    if chunks == 1:
        _spmm(*_arrays(a), readable(x), out, 0, rows)
    else:
        _spmm_chunks(*_arrays(a), readable(x), out, chunks)
    return out


def spmv_t(
    a: Csr[HostArray], y: HostArray, /, *, threads: int | None = None
) -> HostArray:
    check_product(a, y, ndim=1, transposed=True)
    return _transposed(a, y[:, None], threads)[:, 0]


def spmm_t(
    a: Csr[HostArray], y: HostArray, /, *, threads: int | None = None
) -> HostArray:
    check_product(a, y, ndim=2, transposed=True)
    return _transposed(a, y, threads)


def _transposed(a: Csr[HostArray], y: HostArray, threads: int | None) -> HostArray:
    columns, width = a.shape[1], y.shape[1]
    parts = max(1, min(MAX_PARTS, a.nnz // (ENTRIES_A_PART * max(1, columns))))
    chunks = thread_count(threads, a.nnz * width)
    out = np.zeros((columns, width), y.dtype)
    if parts == 1:
        _scatter_rows(*_arrays(a), readable(y), out, 0, a.shape[0])
    elif chunks == 1:
        part = np.empty((columns, width), y.dtype)
        _spmm_t(*_arrays(a), readable(y), out, part, parts)
    else:
        sums = np.empty((parts, columns, width), y.dtype)
        _spmm_t_chunks(*_arrays(a), readable(y), out, sums, chunks)
    return out


def _arrays(a: Csr[HostArray]) -> tuple[HostArray, HostArray, HostArray]:
    return readable(a.indptr), readable(a.indices), readable(a.data)


@numba.njit(**SERIAL)
def _boundary(indptr, chunk, chunks):  # type: ignore[no-untyped-def]
    """Return the first row of a chunk; work is entries plus rows (merge path)."""
    rows = indptr.size - 1
    target = (indptr[rows] + rows) * chunk // chunks
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        if indptr[middle] + middle < target:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(**SERIAL, fastmath=ORDERED)
def _spmv(indptr, indices, data, x, out, start, stop):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        total = out.dtype.type(0)
        for p in range(indptr[i], indptr[i + 1]):
            total += data[p] * x[indices[p]]
        out[i] = total


@numba.njit(**PARALLEL, fastmath=ORDERED)
def _spmv_chunks(indptr, indices, data, x, out, chunks):  # type: ignore[no-untyped-def]
    for c in numba.prange(chunks):
        start = _boundary(indptr, c, chunks)
        stop = _boundary(indptr, c + 1, chunks)
        _spmv(indptr, indices, data, x, out, start, stop)


@numba.njit(**SERIAL, fastmath=ORDERED)
def _spmm(indptr, indices, data, x, out, start, stop):  # type: ignore[no-untyped-def]
    width = out.shape[1]
    for i in range(start, stop):
        for j in range(width):
            out[i, j] = 0
        for p in range(indptr[i], indptr[i + 1]):
            factor = data[p]
            k = indices[p]
            for j in range(width):
                out[i, j] += factor * x[k, j]


@numba.njit(**PARALLEL, fastmath=ORDERED)
def _spmm_chunks(indptr, indices, data, x, out, chunks):  # type: ignore[no-untyped-def]
    for c in numba.prange(chunks):
        start = _boundary(indptr, c, chunks)
        stop = _boundary(indptr, c + 1, chunks)
        _spmm(indptr, indices, data, x, out, start, stop)


@numba.njit(**SERIAL, fastmath=ORDERED)
def _scatter_rows(  # type: ignore[no-untyped-def]
    indptr, indices, data, y, out, start, stop
):
    width = out.shape[1]
    if width == 1:  # a loop over one column costs more than its work
        for i in range(start, stop):
            value = y[i, 0]
            for p in range(indptr[i], indptr[i + 1]):
                out[indices[p], 0] += data[p] * value
        return
    for i in range(start, stop):
        for p in range(indptr[i], indptr[i + 1]):
            factor = data[p]
            k = indices[p]
            for j in range(width):
                out[k, j] += factor * y[i, j]


@numba.njit(**SERIAL, fastmath=ORDERED)
def _spmm_t(indptr, indices, data, y, out, part, parts):  # type: ignore[no-untyped-def]
    """Add the parts up one after the other, in the order of `_spmm_t_chunks`."""
    start, stop = _boundary(indptr, 0, parts), _boundary(indptr, 1, parts)
    _scatter_rows(indptr, indices, data, y, out, start, stop)
    for c in range(1, parts):
        part[:] = 0
        start, stop = stop, _boundary(indptr, c + 1, parts)
        _scatter_rows(indptr, indices, data, y, part, start, stop)
        for k in range(out.shape[0]):
            for j in range(out.shape[1]):
                out[k, j] += part[k, j]


@numba.njit(**PARALLEL, fastmath=ORDERED)
def _spmm_t_chunks(indptr, indices, data, y, out, sums, chunks):  # type: ignore[no-untyped-def]
    parts = sums.shape[0]
    columns = out.shape[0]
    for c in numba.prange(chunks):
        for part in range(parts * c // chunks, parts * (c + 1) // chunks):
            sums[part] = 0
            start = _boundary(indptr, part, parts)
            stop = _boundary(indptr, part + 1, parts)
            _scatter_rows(indptr, indices, data, y, sums[part], start, stop)
    for c in numba.prange(chunks):
        for k in range(columns * c // chunks, columns * (c + 1) // chunks):
            for j in range(out.shape[1]):
                total = sums[0, k, j]
                for part in range(1, parts):
                    total += sums[part, k, j]
                out[k, j] = total


def _signatures(dense: int, *rest: object) -> tuple[tuple[object, ...], ...]:
    """Return (indptr, indices, data, x, out, ...) for every pair of types."""
    variants = []
    for f in (types.float32, types.float64):
        for i in (types.int32, types.int64):
            block = types.Array(f, dense, "C")
            extra = (types.Array(f, r, "C") if isinstance(r, int) else r for r in rest)
            variants.append((i[::1], i[::1], f[::1], block, block, *extra))
    return tuple(variants)


_N = types.int64

ENTRIES = (
    Entry(_spmv, _signatures(1, _N, _N)),
    Entry(_spmv_chunks, _signatures(1, _N)),
    Entry(_spmm, _signatures(2, _N, _N)),
    Entry(_spmm_chunks, _signatures(2, _N)),
    Entry(_scatter_rows, _signatures(2, _N, _N)),
    Entry(_spmm_t, _signatures(2, 2, _N)),
    Entry(_spmm_t_chunks, _signatures(2, 3, _N)),
)
