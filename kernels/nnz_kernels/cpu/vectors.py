"""Sparse vectors on the host: checks, memory, and which table to use.

The loops are in `stamps`.
"""

from __future__ import annotations

import secrets
import threading

import numpy as np

from nnz_kernels.api.vectors import (
    Duplicates,
    Zeros,
    check_factor,
    check_factors,
    check_gather,
    check_policies,
    check_vectors,
    duplicate_error,
)
from nnz_kernels.arrays import HostArray, Workspace, blank_stamps
from nnz_kernels.cpu import bit_sums, sieve, stamps
from nnz_kernels.cpu._runtime import readable, thread_count
from nnz_kernels.cpu.recycled import RECYCLER
from nnz_kernels.formats import Ragged, SparseVector

#: A dense table of any use is at most this long: 16 MiB. Measured on a core with 2 MiB
#: of second-level cache (tests/benchmarks/test_vector_tables.py, ns an entry, 65,536
#: entries): at 2**20 cells dense 6.0 and hash 10.1, at 2**22 dense 11.8 and hash 10.1.
DENSE_CELLS = 2**21

#: And it is at most this many times longer than the entries: beyond, it saves a few ns
#: an entry (256 entries, 2**20 cells: 9.1 against 12.0) for much memory.
DENSE_RATIO = 1024

#: Bitmaps take a word for so many entries at most: clearing them costs less than the
#: entries do. Measured with 20,000 entries in dimension 1e6, when nothing was in the
#: cache: 0.17 ms, by stamps 0.8 ms.
WORD_RATIO = 1

#: Up to here a dense table costs no memory worth saving.
SMALL_CELLS = 2**16

#: Words of bitmaps, and places, that a thread keeps; none take memory before use.
KEPT = 1 << 18

#: Of the sieve's hash; odd, and random, so that nobody can choose indices that meet.
_FACTOR = np.uint64(2 * secrets.randbelow(1 << 63) + 1)

_MODES = {"sum": stamps.SUM, "error": stamps.ERROR, "last": stamps.LAST}


class _Scratch(threading.local):
    """What each Python thread keeps: a workspace, and one a chunk for batches.

    And bitmaps and lists of places, unless they are so long that pages cost little. The
    last views are kept too: to make one takes as long as 300 entries do.
    """

    def __init__(self) -> None:
        self.workspace = Workspace()
        self.batch = np.zeros((0, 1), np.int64)
        self._bits = np.empty(KEPT, np.uint64)
        self._places = np.empty(KEPT, np.int64)
        self._bitmaps = self._bits[:0].reshape(3, 0)
        self._lists = self._places[:0].reshape(2, 0)

    def reserve(self, chunks: int, cells: int) -> HostArray:
        """Return stamps (chunks, 1 + cells or more)."""
        rows, columns = self.batch.shape
        if rows < chunks or columns < cells + 1:
            self.batch = blank_stamps(max(rows, chunks), max(columns - 1, cells))
        return self.batch

    def bitmaps(self, words: int) -> HostArray:
        """Return three, (3, words), uninitialised; until the next call."""
        if 3 * words > KEPT:
            return np.empty((3, words), np.uint64)
        if self._bitmaps.shape[1] != words:
            self._bitmaps = self._bits[: 3 * words].reshape(3, words)
        return self._bitmaps

    def lists(self, length: int) -> HostArray:
        """Return two, (2, length), uninitialised; until the next call."""
        if 2 * length > KEPT:
            return np.empty((2, length), np.int64)
        if self._lists.shape[1] != length:
            self._lists = self._places[: 2 * length].reshape(2, length)
        return self._lists


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
    factor = check_factor(r, u.values.dtype)
    mine, yours = u.indices.size, v.indices.size
    entries = mine + yours
    indices = RECYCLER.empty(entries + 1, u.indices.dtype)
    values = RECYCLER.empty(entries + 1, u.values.dtype)
    drop = zeros == "drop_exact"
    given = *_pair(u), factor, *_pair(v), indices, values
    count, words = -1, u.size // 64 + 1
    if words <= WORD_RATIO * entries:
        places = _scratch.lists(mine + 1)[0]
        count = bit_sums.axpy(*given, _scratch.bitmaps(words), places, drop)
    else:
        count = sieve.axpy(*given, *_sieve(max(mine, yours), entries), drop)
    if count < 0:  # with duplicates, or with much in common
        cells, dense = _stamps(workspace, u.size, entries)
        count = stamps.axpy(*given, cells, dense, _MODES[duplicates], drop)
    if count < 0:
        raise _refused(-1 - count, u.indices, v.indices)
    indices, values = indices[:count], values[:count]
    if 2 * count < entries:  # do not keep what nobody needs
        indices, values = indices.copy(), values.copy()
    return SparseVector(indices, values, u.size)


def dot(
    u: SparseVector[HostArray],
    v: SparseVector[HostArray],
    /,
    *,
    workspace: Workspace | None = None,
) -> float:
    check_vectors(u, v)
    cells, dense = _stamps(workspace, u.size, min(u.nnz, v.nnz))
    return float(stamps.dot(*_pair(u), *_pair(v), cells, dense))


def gather(x: HostArray, indices: HostArray, /) -> HostArray:
    check_gather(x, indices)
    return np.take(x, indices)


def scatter(u: SparseVector[HostArray], /) -> HostArray:
    check_vectors(u, u)
    out = np.zeros(u.size, u.values.dtype)
    stamps.scatter(*_pair(u), out)
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
    cells = _scratch.reserve(chunks, us.size if dense else _table(widest))
    mode, drop = _MODES[duplicates], zeros == "drop_exact"
    out = indices, values, counts
    stamps.axpy_many(
        *_triple(us), factors, *_triple(vs), *out, cells, dense, mode, drop, chunks
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
    cells = _scratch.reserve(chunks, us.size if dense else _table(widest))
    stamps.dot_many(*_triple(us), *_triple(vs), out, cells, dense, chunks)
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
    cells, dense = _stamps(workspace, u0.size, distinct)
    drop = zeros == "drop_exact"
    left, right = _pair(u0), _triple(vs)
    count = stamps.combine(*left, factors, *right, indices, values, cells, dense, drop)
    return SparseVector(indices[:count], values[:count], u0.size)


def _is_dense(size: int, entries: int) -> bool:
    return size <= min(DENSE_CELLS, max(SMALL_CELLS, DENSE_RATIO * entries))


def _table(entries: int) -> int:
    """Return the cells of a hash table at most half full: a power of two."""
    return 1 << max(4, (2 * entries - 1).bit_length())


def _stamps(
    workspace: Workspace | None, size: int, entries: int
) -> tuple[HostArray, bool]:
    space = _scratch.workspace if workspace is None else workspace
    dense = _is_dense(size, entries)
    return space.reserve(size if dense else _table(entries)), dense


def _sieve(
    longer: int, entries: int
) -> tuple[HostArray, np.uint64, np.uint64, HostArray]:
    """Return bitmaps, the bits of a hash that are no bit of theirs, factor, lists."""
    length = max(6, (sieve.BITS * entries).bit_length())
    bits = _scratch.bitmaps(1 << (length - 6))
    return bits, np.uint64(64 - length), _FACTOR, _scratch.lists(longer + 1)


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
    """Close the gaps that merged and dropped entries left, in place."""
    indptr = np.zeros(us.count + 1, us.indices.dtype)
    np.cumsum(counts, out=indptr[1:])
    total = int(indptr[-1])
    if total < indices.size:
        pointers = readable(us.indptr), readable(vs.indptr), indptr
        stamps.close_gaps(*pointers, indices, values)
        indices, values = indices[:total], values[:total]
        if 2 * total < us.nnz + vs.nnz:  # do not keep what nobody needs
            indices, values = indices.copy(), values.copy()
    return Ragged(indptr, indices, values, us.size)


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
