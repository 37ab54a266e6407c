"""Sparse vectors on the host: epoch stamps instead of a cleared workspace.

A cell of the workspace holds ``epoch << 32 | position``. Where the dimension is small
the cell of an index is the index itself; where it dwarfs the number of entries the
cells are an open-addressing hash table sized to the entries, whose keys are the
output's own indices. Each call takes two epochs: the second marks what the second
operand has already touched.
"""

from __future__ import annotations

import threading
from typing import Any

import numba
import numpy as np
from numba import types

from nnz_kernels.api.vectors import (
    Duplicates,
    Zeros,
    check_factors,
    check_gather,
    check_policies,
    check_vectors,
    duplicate_error,
)
from nnz_kernels.arrays import HostArray, Workspace
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import PARALLEL, SERIAL, readable, thread_count
from nnz_kernels.formats import Ragged, SparseVector

#: A dense table is used up to this many cells, which stay in the second-level cache.
DENSE_CELLS = 65_536

#: Above that, it is used while the dimension is at most this many times the entries.
DENSE_RATIO = 64

#: Stamps are cleared when the epoch would pass 31 bits: once in 2**30 calls.
_LAST_EPOCH = 2**31 - 4

_LOW = 0xFFFFFFFF
_SUM, _ERROR, _LAST = 0, 1, 2
_MODES = {"sum": _SUM, "error": _ERROR, "last": _LAST}


class _Scratch(threading.local):
    """What each Python thread keeps: a workspace, and one a chunk for batches."""

    def __init__(self) -> None:
        self.workspace = Workspace()
        self.batch = np.zeros((0, 1), np.int64)

    def reserve(self, chunks: int, cells: int) -> HostArray:
        """Return stamps (chunks, 1 + cells or more)."""
        rows, columns = self.batch.shape
        if rows < chunks or columns < cells + 1:
            shape = max(rows, chunks), max(columns, cells + 1)
            self.batch = np.zeros(shape, np.int64)
        return self.batch


_scratch = _Scratch()


def axpy(
    u: SparseVector[HostArray],
    r: float,
    v: SparseVector[HostArray],
    /,
    *,
    workspace: Workspace | None = None,
    zeros: Zeros = "keep",
    duplicates: Duplicates = "sum",
) -> SparseVector[HostArray]:
    check_vectors(u, v)
    check_policies(zeros, duplicates)
    factor = check_factors([r], 1, u.values.dtype)[0]
    entries = u.nnz + v.nnz
    indices = np.empty(entries, u.indices.dtype)
    values = np.empty(entries, u.values.dtype)
    stamps, dense = _stamps(workspace, u.size, entries)
    mode, drop = _MODES[duplicates], zeros == "drop_exact"
    left, right = _pair(u), _pair(v)
    count = _axpy(*left, factor, *right, indices, values, stamps, dense, mode, drop)
    if count < 0:
        raise _refused(-1 - count, u.indices, v.indices)
    return SparseVector(indices[:count], values[:count], u.size)


def dot(
    u: SparseVector[HostArray],
    v: SparseVector[HostArray],
    /,
    *,
    workspace: Workspace | None = None,
) -> float:
    check_vectors(u, v)
    stamps, dense = _stamps(workspace, u.size, min(u.nnz, v.nnz))
    return float(_dot(*_pair(u), *_pair(v), stamps, dense))


def gather(x: HostArray, indices: HostArray, /) -> HostArray:
    check_gather(x, indices)
    return np.take(x, indices)


def scatter(u: SparseVector[HostArray], /) -> HostArray:
    check_vectors(u, u)
    out = np.zeros(u.size, u.values.dtype)
    _scatter(*_pair(u), out)
    return out


def axpy_many(
    us: Ragged[HostArray],
    r: HostArray,
    vs: Ragged[HostArray],
    /,
    *,
    zeros: Zeros = "keep",
    duplicates: Duplicates = "sum",
    threads: int | None = None,
) -> Ragged[HostArray]:
    check_vectors(us, vs)
    check_policies(zeros, duplicates)
    factors = check_factors(r, us.count, us.values.dtype)
    entries = us.nnz + vs.nnz
    indices = np.empty(entries, us.indices.dtype)
    values = np.empty(entries, us.values.dtype)
    counts = np.zeros(us.count, np.int64)
    widest = _widest(us, vs)
    chunks = thread_count(threads, entries)
    dense = _is_dense(us.size, widest)
    stamps = _scratch.reserve(chunks, us.size if dense else _table(widest))
    mode, drop = _MODES[duplicates], zeros == "drop_exact"
    out = indices, values, counts
    _axpy_many(
        *_triple(us), factors, *_triple(vs), *out, stamps, dense, mode, drop, chunks
    )
    if (wrong := counts < 0).any():
        k = int(np.argmax(wrong))
        raise _refused_pair(-1 - int(counts[k]), us, vs, k)
    return _compacted(us, vs, indices, values, counts)


def dot_many(
    us: Ragged[HostArray], vs: Ragged[HostArray], /, *, threads: int | None = None
) -> HostArray:
    check_vectors(us, vs)
    out = np.empty(us.count, np.float64)
    widest = _widest(us, vs)
    chunks = thread_count(threads, us.nnz + vs.nnz)
    dense = _is_dense(us.size, widest)
    stamps = _scratch.reserve(chunks, us.size if dense else _table(widest))
    _dot_many(*_triple(us), *_triple(vs), out, stamps, dense, chunks)
    return out


def combine(
    u0: SparseVector[HostArray],
    r: HostArray,
    vs: Ragged[HostArray],
    /,
    *,
    workspace: Workspace | None = None,
    zeros: Zeros = "keep",
) -> SparseVector[HostArray]:
    check_vectors(u0, vs)
    check_policies(zeros)
    factors = check_factors(r, vs.count, u0.values.dtype)
    distinct = min(u0.nnz + vs.nnz, u0.size)
    indices = np.empty(distinct, u0.indices.dtype)
    values = np.empty(distinct, u0.values.dtype)
    stamps, dense = _stamps(workspace, u0.size, distinct)
    drop = zeros == "drop_exact"
    left, right = _pair(u0), _triple(vs)
    count = _combine(*left, factors, *right, indices, values, stamps, dense, drop)
    return SparseVector(indices[:count], values[:count], u0.size)


def _is_dense(size: int, entries: int) -> bool:
    return size <= max(DENSE_CELLS, DENSE_RATIO * entries)


def _table(entries: int) -> int:
    """Return the cells of a hash table at most half full: a power of two."""
    return 1 << max(4, (2 * entries - 1).bit_length())


def _stamps(
    workspace: Workspace | None, size: int, entries: int
) -> tuple[HostArray, bool]:
    space = _scratch.workspace if workspace is None else workspace
    dense = _is_dense(size, entries)
    return space.reserve(size if dense else _table(entries)), dense


def _pair(u: SparseVector[HostArray]) -> tuple[HostArray, HostArray]:
    return readable(u.indices), readable(u.values)


def _triple(us: Ragged[HostArray]) -> tuple[HostArray, HostArray, HostArray]:
    return readable(us.indptr), readable(us.indices), readable(us.values)


def _widest(us: Ragged[HostArray], vs: Ragged[HostArray]) -> int:
    return int(np.max(np.diff(us.indptr) + np.diff(vs.indptr), initial=0))


def _compacted(
    us: Ragged[HostArray],
    vs: Ragged[HostArray],
    indices: HostArray,
    values: HostArray,
    counts: HostArray,
) -> Ragged[HostArray]:
    """Close the gaps that merged and dropped entries left."""
    indptr = np.zeros(us.count + 1, us.indices.dtype)
    np.cumsum(counts, out=indptr[1:])
    if indptr[-1] == indices.size:
        return Ragged(indptr, indices, values, us.size)
    starts = us.indptr[:-1].astype(np.int64) + vs.indptr[:-1]
    keep = np.repeat(starts - indptr[:-1], counts) + np.arange(indptr[-1])
    return Ragged(indptr, indices[keep], values[keep], us.size)


def _refused(position: int, u: HostArray, v: HostArray) -> Exception:
    name, at, part = "u.indices", position, u
    if position >= u.size:
        name, at, part = "v.indices", position - u.size, v
    return duplicate_error(name, at, int(part[at]))


def _refused_pair(
    position: int, us: Ragged[HostArray], vs: Ragged[HostArray], k: int
) -> Exception:
    u = us.indices[us.indptr[k] : us.indptr[k + 1]]
    v = vs.indices[vs.indptr[k] : vs.indptr[k + 1]]
    return _refused(position, u, v)


@numba.njit(**SERIAL)
def _begin(stamps):  # type: ignore[no-untyped-def]
    """Take two epochs before anything is written; return the first."""
    epoch = stamps[0] + 2
    if epoch > _LAST_EPOCH:
        stamps[:] = 0
        epoch = np.int64(2)
    stamps[0] = epoch
    return epoch


@numba.njit(**SERIAL)
def _mask(dense, entries):  # type: ignore[no-untyped-def]
    """Return the size of the hash table minus one, or 0 for the dense table."""
    if dense:
        return np.int64(0)
    cells = np.int64(16)
    while cells < 2 * entries:
        cells *= 2
    return cells - 1


@numba.njit(**SERIAL)
def _cell(stamps, mask, epoch, index, keys):  # type: ignore[no-untyped-def]
    """Return the cell that holds *index*, or the free one where it belongs."""
    if mask == 0:
        return np.int64(index) + 1
    place = (np.int64(index) * np.int64(0x9E3779B97F4A7C1)) >> 20 & mask
    while True:
        stamp = stamps[place + 1]
        if stamp >> 32 < epoch or keys[stamp & _LOW] == index:
            return place + 1
        place = (place + 1) & mask


@numba.njit(**SERIAL)
def _axpy(ui, uv, r, vi, vv, oi, ov, stamps, dense, mode, drop):  # type: ignore[no-untyped-def]
    """Fill (oi, ov); return their count, or -1 - position of a refused duplicate."""
    epoch = _begin(stamps)
    mask = _mask(dense, ui.size + vi.size)
    count = 0
    for p in range(ui.size):
        cell = _cell(stamps, mask, epoch, ui[p], oi)
        stamp = stamps[cell]
        if stamp >> 32 < epoch:
            stamps[cell] = epoch << 32 | count
            oi[count] = ui[p]
            ov[count] = uv[p]
            count += 1
        elif mode == _SUM:
            ov[stamp & _LOW] += uv[p]
        elif mode == _LAST:
            ov[stamp & _LOW] = uv[p]
        else:
            return -1 - p
    own = ov[: count if mode == _LAST else 0].copy()
    for p in range(vi.size):
        term = r * vv[p]
        cell = _cell(stamps, mask, epoch, vi[p], oi)
        stamp = stamps[cell]
        at = stamp & _LOW
        if stamp >> 32 < epoch:
            stamps[cell] = (epoch + 1) << 32 | count
            oi[count] = vi[p]
            ov[count] = term
            count += 1
        elif mode == _SUM:
            ov[at] += term
        elif stamp >> 32 == epoch:
            stamps[cell] = (epoch + 1) << 32 | at
            ov[at] += term
        elif mode == _LAST:
            ov[at] = own[at] + term if at < own.size else term
        else:
            return -1 - ui.size - p
    return _drop_zeros(oi, ov, count) if drop else count


@numba.njit(**SERIAL)
def _drop_zeros(oi, ov, count):  # type: ignore[no-untyped-def]
    kept = 0
    for p in range(count):
        if ov[p] != 0:
            oi[kept] = oi[p]
            ov[kept] = ov[p]
            kept += 1
    return kept


@numba.njit(**SERIAL)
def _dot(ui, uv, vi, vv, stamps, dense):  # type: ignore[no-untyped-def]
    """Put the shorter operand into the table, stream the longer past it."""
    if ui.size > vi.size:
        ui, uv, vi, vv = vi, vv, ui, uv
    epoch = _begin(stamps)
    mask = _mask(dense, ui.size)
    keys = np.empty_like(ui)
    sums = np.empty(ui.size, np.float64)
    count = 0
    for p in range(ui.size):
        cell = _cell(stamps, mask, epoch, ui[p], keys)
        stamp = stamps[cell]
        if stamp >> 32 < epoch:
            stamps[cell] = epoch << 32 | count
            keys[count] = ui[p]
            sums[count] = uv[p]
            count += 1
        else:
            sums[stamp & _LOW] += uv[p]
    total = 0.0
    for p in range(vi.size):
        stamp = stamps[_cell(stamps, mask, epoch, vi[p], keys)]
        if stamp >> 32 >= epoch:
            total += sums[stamp & _LOW] * vv[p]
    return total


@numba.njit(**SERIAL)
def _scatter(ui, uv, out):  # type: ignore[no-untyped-def]
    for p in range(ui.size):
        out[ui[p]] += uv[p]


@numba.njit(**SERIAL)
def _combine(  # type: ignore[no-untyped-def]
    ui, uv, r, vptr, vi, vv, oi, ov, stamps, dense, drop
):
    epoch = _begin(stamps)
    mask = _mask(dense, oi.size)
    count = 0
    for k in range(-1, r.size):
        if k < 0:
            indices, values, start, stop = ui, uv, 0, ui.size
        else:
            indices, values, start, stop = vi, vv, vptr[k], vptr[k + 1]
        for p in range(start, stop):
            term = values[p] if k < 0 else r[k] * values[p]
            cell = _cell(stamps, mask, epoch, indices[p], oi)
            stamp = stamps[cell]
            if stamp >> 32 >= epoch:
                ov[stamp & _LOW] += term
            else:
                stamps[cell] = epoch << 32 | count
                oi[count] = indices[p]
                ov[count] = term
                count += 1
    return _drop_zeros(oi, ov, count) if drop else count


@numba.njit(**SERIAL)
def _pair_boundary(uptr, vptr, chunk, chunks):  # type: ignore[no-untyped-def]
    """Return the first pair of a chunk; work is entries plus pairs."""
    pairs = uptr.size - 1
    target = (uptr[pairs] + vptr[pairs] + pairs) * chunk // chunks
    low, high = 0, pairs
    while low < high:
        middle = (low + high) // 2
        if uptr[middle] + vptr[middle] + middle < target:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(**PARALLEL)
def _axpy_many(  # type: ignore[no-untyped-def]
    uptr, ui, uv, r, vptr, vi, vv, oi, ov, counts, stamps, dense, mode, drop, chunks
):
    for c in numba.prange(chunks):
        stop = _pair_boundary(uptr, vptr, c + 1, chunks)
        for k in range(_pair_boundary(uptr, vptr, c, chunks), stop):
            a, b = uptr[k], uptr[k + 1]
            s, t = vptr[k], vptr[k + 1]
            counts[k] = _axpy(
                ui[a:b], uv[a:b], r[k], vi[s:t], vv[s:t],
                oi[a + s : b + t], ov[a + s : b + t], stamps[c], dense, mode, drop,
            )  # fmt: skip


@numba.njit(**PARALLEL)
def _dot_many(  # type: ignore[no-untyped-def]
    uptr, ui, uv, vptr, vi, vv, out, stamps, dense, chunks
):
    for c in numba.prange(chunks):
        stop = _pair_boundary(uptr, vptr, c + 1, chunks)
        for k in range(_pair_boundary(uptr, vptr, c, chunks), stop):
            a, b = uptr[k], uptr[k + 1]
            s, t = vptr[k], vptr[k + 1]
            out[k] = _dot(ui[a:b], uv[a:b], vi[s:t], vv[s:t], stamps[c], dense)


def _signatures(pattern: str) -> tuple[tuple[Any, ...], ...]:
    """Return argument types: i and f vary, capitals are fixed or scalars."""
    fixed = {
        "S": types.int64[::1],
        "M": types.int64[:, ::1],
        "D": types.float64[::1],
        "B": types.boolean,
        "N": types.int64,
    }
    variants = []
    for f in (types.float32, types.float64):
        for i in (types.int32, types.int64):
            letters = {"i": i[::1], "f": f[::1], "r": f, **fixed}
            variants.append(tuple(letters[letter] for letter in pattern))
    return tuple(variants)


ENTRIES = (
    Entry(_axpy, _signatures("ifrififSBNB")),
    Entry(_dot, _signatures("ififSB")),
    Entry(_scatter, _signatures("iff")),
    Entry(_combine, _signatures("iffiififSBB")),
    Entry(_axpy_many, _signatures("iiffiififSMBNBN")),
    Entry(_dot_many, _signatures("iifiifDMBN")),
)
