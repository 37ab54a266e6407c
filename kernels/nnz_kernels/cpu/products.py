"""Products on the host: runs of rows with equal work, one thread each.

A row is never shared between threads, and its entries are added in stored order without
fused multiply-adds: the bits are those of SciPy's plain C loops, and a separate add has
the shorter latency anyway. The transposed products scatter. For one vector a number of
accumulators that depends on the matrix alone is filled in parallel and added up in a
fixed order; for a block each thread owns some of its columns.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from nnz_kernels.api.products import check_product
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._columns import VECTOR_BYTES, gather_rows, scatter_row, settle
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._prefetch import prefetch
from nnz_kernels.cpu._runtime import (
    PARALLEL,
    SERIAL,
    readable,
    thread_count,
)
from nnz_kernels.cpu.recycled import RECYCLER
from nnz_kernels.cpu.spmv_rows import (
    AHEAD,
    ROW_WORK,
    boundary,
    spmv_chunks,
    spmv_rows,
)
from nnz_kernels.formats import Csr

#: Entries a column that pay for one more accumulator: filling and adding one up moves
#: three values a column, scattering moves about one an entry.
ENTRIES_A_PART = 3

#: Accumulators at most; each takes as much memory as the result.
MAX_PARTS = 8

#: Bytes of a row that one thread owns in a transposed product: threads that share a
#: cache line slow each other down.
LINE = 64

#: Bytes of a block from which on it is written past the cache: little of it would stay
#: near, and whoever writes into the cache reads first what was there: a tenth of the
#: time at 8 MiB, a quarter of larger ones. Of whole lines only: parts of two lines
#: would be sent one by one.
PAST = 1 << 23

#: Columns of a block from which on an entry takes as long as it does to begin a row.
_NARROW = 16


def spmv(
    a: Csr[HostArray], x: HostArray, /, *, threads: int | None = None
) -> HostArray:
    rows = check_product(a, x, ndim=1, transposed=False)
    out = RECYCLER.empty(rows, x.dtype)
    chunks = thread_count(threads, a.nnz)
    if chunks == 1:
        spmv_rows(*_arrays(a), readable(x), out, 0, rows)
    else:
        spmv_chunks(*_arrays(a), readable(x), out, chunks)
    return out


def spmm(
    a: Csr[HostArray], x: HostArray, /, *, threads: int | None = None
) -> HostArray:
    rows = check_product(a, x, ndim=2, transposed=False)
    if x.shape[1] == 1:
        return spmv(a, x[:, 0], threads=threads)[:, None]
    out = RECYCLER.empty((rows, x.shape[1]), x.dtype)
    chunks = thread_count(threads, a.nnz * x.shape[1])
    if x.dtype.kind == "c":
        _spmm_complex(*_arrays(a), readable(x), out, chunks)
    elif chunks == 1:
        _spmm(*_arrays(a), readable(x), out, _is_past(out), 0, rows)
    else:
        row_work = ROW_WORK if x.shape[1] < _NARROW else 1
        _spmm_chunks(*_arrays(a), readable(x), out, _is_past(out), chunks, row_work)
    return out


def _is_past(out: HostArray) -> bool:
    """Whether a block is better written past the cache, and aligned for it."""
    if out.nbytes < PAST or out.shape[1] * out.itemsize % LINE:
        return False
    return out.ctypes.data % LINE == 0


def spmv_t(
    a: Csr[HostArray],
    y: HostArray,
    /,
    *,
    conjugate: bool = False,
    threads: int | None = None,
) -> HostArray:
    columns = check_product(a, y, ndim=1, transposed=True)
    if conjugate and y.dtype.kind == "c":
        return spmv_t(a, y.conj(), threads=threads).conj()
    parts = max(1, min(MAX_PARTS, a.nnz // (ENTRIES_A_PART * max(1, columns))))
    arrays, y = _arrays(a), readable(y)
    if parts == 1:
        out = np.zeros(columns, y.dtype)
        _spmv_t(*arrays, y, out, 0, a.shape[0])
        return out
    out = RECYCLER.empty(columns, y.dtype)
    sums = RECYCLER.empty((parts, columns), y.dtype)
    chunks = thread_count(threads, a.nnz)
    if chunks == 1:
        _fill(*arrays, y, sums, 0, parts)
        _add_up(sums, out, 0, columns)
    else:
        _spmv_t_chunks(*arrays, y, out, sums, chunks)
    return out


def spmm_t(
    a: Csr[HostArray],
    y: HostArray,
    /,
    *,
    conjugate: bool = False,
    threads: int | None = None,
) -> HostArray:
    columns = check_product(a, y, ndim=2, transposed=True)
    if conjugate and y.dtype.kind == "c":
        return spmm_t(a, y.conj(), threads=threads).conj()
    width = y.shape[1]
    out = np.zeros((columns, width), y.dtype)
    chunks = thread_count(threads, a.nnz * width)
    chunks = max(1, min(chunks, width * y.itemsize // LINE))
    if y.dtype.kind == "c":
        _spmm_t_complex(*_arrays(a), readable(y), out, chunks)
    elif chunks == 1:
        _spmm_t(*_arrays(a), readable(y), out, 0, width)
    else:
        _spmm_t_chunks(*_arrays(a), readable(y), out, chunks)
    return out


def _arrays(a: Csr[HostArray]) -> tuple[HostArray, HostArray, HostArray]:
    return readable(a.indptr), readable(a.indices), readable(a.data)


@numba.njit(**SERIAL)
def _spmm(indptr, indices, data, x, out, past, start, stop):  # type: ignore[no-untyped-def]
    width = out.shape[1]
    lanes = VECTOR_BYTES // out.itemsize
    for i in range(start, stop):
        first, last = np.int64(indptr[i]), np.int64(indptr[i + 1])
        prefetch(data, np.uint64(first) + AHEAD)
        prefetch(indices, np.uint64(first) + AHEAD)
        j = 0
        while j + 4 * lanes <= width:
            gather_rows(indices, data, first, last, x, out, i, j, lanes, 4, past)
            j += 4 * lanes
        if j + 2 * lanes <= width:
            gather_rows(indices, data, first, last, x, out, i, j, lanes, 2, past)
            j += 2 * lanes
        if j + lanes <= width:
            gather_rows(indices, data, first, last, x, out, i, j, lanes, 1, past)
            j += lanes
        if j < width:
            gather_rows(indices, data, first, last, x, out, i, j, width - j, 0, past)
    if past:
        settle()


@numba.njit(**PARALLEL)
def _spmm_chunks(indptr, indices, data, x, out, past, chunks, row_work):  # type: ignore[no-untyped-def]
    for c in numba.prange(chunks):
        start = boundary(indptr, c, chunks, row_work)
        stop = boundary(indptr, c + 1, chunks, row_work)
        _spmm(indptr, indices, data, x, out, past, start, stop)


@numba.njit(**SERIAL)
def _spmv_t(indptr, indices, data, y, out, start, stop):  # type: ignore[no-untyped-def]
    p = np.uint64(indptr[start])
    for i in range(start, stop):
        value = y[i]
        end = np.uint64(indptr[i + 1])
        while p < end:
            out[np.uint64(indices[p])] += data[p] * value
            p += np.uint64(1)


@numba.njit(**SERIAL)
def _fill(indptr, indices, data, y, sums, first, last):  # type: ignore[no-untyped-def]
    """Fill the accumulators ``first..last``, each from its own run of rows."""
    parts = sums.shape[0]
    for part in range(first, last):
        for k in range(sums.shape[1]):
            sums[part, k] = 0
        start = boundary(indptr, part, parts)
        stop = boundary(indptr, part + 1, parts)
        _spmv_t(indptr, indices, data, y, sums[part], start, stop)


@numba.njit(**SERIAL)
def _add_up(sums, out, start, stop):  # type: ignore[no-untyped-def]
    """Add the accumulators up, in order, for the columns ``start..stop``."""
    for k in range(start, stop):
        out[k] = sums[0, k]
    for part in range(1, sums.shape[0]):
        for k in range(start, stop):
            out[k] += sums[part, k]


@numba.njit(**PARALLEL)
def _spmv_t_chunks(indptr, indices, data, y, out, sums, chunks):  # type: ignore[no-untyped-def]
    parts, columns = sums.shape
    for c in numba.prange(chunks):
        first, last = parts * c // chunks, parts * (c + 1) // chunks
        _fill(indptr, indices, data, y, sums, first, last)
    for c in numba.prange(chunks):
        _add_up(sums, out, columns * c // chunks, columns * (c + 1) // chunks)


@numba.njit(**SERIAL)
def _spmm_t(indptr, indices, data, y, out, start, stop):  # type: ignore[no-untyped-def]
    """Scatter the columns ``start..stop`` of the dense block."""
    lanes = VECTOR_BYTES // out.itemsize
    for i in range(indptr.size - 1):
        first, last = np.int64(indptr[i]), np.int64(indptr[i + 1])
        j = start
        while j + 4 * lanes <= stop:
            scatter_row(indices, data, first, last, y, out, i, j, lanes, 4)
            j += 4 * lanes
        if j + 2 * lanes <= stop:
            scatter_row(indices, data, first, last, y, out, i, j, lanes, 2)
            j += 2 * lanes
        if j + lanes <= stop:
            scatter_row(indices, data, first, last, y, out, i, j, lanes, 1)
            j += lanes
        if j < stop:
            scatter_row(indices, data, first, last, y, out, i, j, stop - j, 0)


@numba.njit(**PARALLEL)
def _spmm_t_chunks(indptr, indices, data, y, out, chunks):  # type: ignore[no-untyped-def]
    width = out.shape[1]
    for c in numba.prange(chunks):
        start, stop = width * c // chunks, width * (c + 1) // chunks
        _spmm_t(indptr, indices, data, y, out, start, stop)


@numba.njit(**PARALLEL)
def _spmm_complex(indptr, indices, data, x, out, chunks):  # type: ignore[no-untyped-def]
    """Multiply by a block of complex vectors, for which there are no intrinsics."""
    for c in numba.prange(chunks):
        stop = boundary(indptr, c + 1, chunks)
        for i in range(boundary(indptr, c, chunks), stop):
            out[i] = 0
            for p in range(indptr[i], indptr[i + 1]):
                value, j = data[np.uint64(p)], np.uint64(indices[np.uint64(p)])
                for k in range(out.shape[1]):
                    out[i, k] += value * x[j, k]


@numba.njit(**PARALLEL)
def _spmm_t_complex(indptr, indices, data, y, out, chunks):  # type: ignore[no-untyped-def]
    """Scatter a block of complex vectors; each chunk has some of the columns."""
    width = out.shape[1]
    for c in numba.prange(chunks):
        start, stop = width * c // chunks, width * (c + 1) // chunks
        for i in range(indptr.size - 1):
            for p in range(indptr[i], indptr[i + 1]):
                value, j = data[np.uint64(p)], np.uint64(indices[np.uint64(p)])
                for k in range(start, stop):
                    out[j, k] += value * y[i, k]


def _signatures(
    pattern: str, *, real: bool = True, complex_too: bool = False
) -> tuple[tuple[Any, ...], ...]:
    """Return argument types: i, v and m vary with index and data type."""
    variants = []
    floats = (types.float32, types.float64) if real else ()
    for f in (*floats, *((types.complex128,) if complex_too else ())):
        for i in (types.int32, types.int64):
            letters = {"i": i[::1], "v": f[::1], "m": f[:, ::1]}
            letters |= {"B": types.boolean, "N": types.int64}
            variants.append(tuple(letters[letter] for letter in pattern))
    return tuple(variants)


ENTRIES = (
    Entry(spmv_rows, _signatures("iivvvNN", complex_too=True)),
    Entry(spmv_chunks, _signatures("iivvvN", complex_too=True)),
    Entry(_spmm, _signatures("iivmmBNN")),
    Entry(_spmm_chunks, _signatures("iivmmBNN")),
    Entry(_spmv_t, _signatures("iivvvNN", complex_too=True)),
    Entry(_fill, _signatures("iivvmNN", complex_too=True)),
    Entry(_add_up, _signatures("mvNN", complex_too=True)[::2]),
    Entry(_spmv_t_chunks, _signatures("iivvvmN", complex_too=True)),
    Entry(_spmm_t, _signatures("iivmmNN")),
    Entry(_spmm_t_chunks, _signatures("iivmmN")),
    Entry(_spmm_complex, _signatures("iivmmN", real=False, complex_too=True)),
    Entry(_spmm_t_complex, _signatures("iivmmN", real=False, complex_too=True)),
)
