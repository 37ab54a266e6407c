"""Sums of two sparse vectors by bitmaps, which stay near the core where tables do not.

A bitmap of all indices is a 64th of a table of stamps. It tells whether an index was
met, but not where; the place of one that both operands have is its rank among those,
counted from running sums over words. Nothing branches on what an operand holds.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from nnz_kernels.cpu._bits import count_bits
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import SERIAL
from nnz_kernels.cpu._sums import DUPLICATES, drop_zeros, put


@numba.njit(**SERIAL)
def _mark(indices, bits):  # type: ignore[no-untyped-def]
    """Set the bits of indices; return whether one was set before."""
    one, low, shift = np.uint64(1), np.uint64(63), np.uint64(6)
    twice = np.uint64(0)
    for p in range(indices.size):
        i = np.uint64(indices[p])
        word = bits[i >> shift]
        twice |= word >> (i & low)
        bits[i >> shift] = word | one << (i & low)
    return twice & one != 0


@numba.njit(**SERIAL)
def _share(vi, vv, r, mine, yours, oi, ov, count):  # type: ignore[no-untyped-def]
    """Append what *v* alone has; put places of the rest at the end, backwards.

    Return where what was appended ends, and whether *v* has an index twice.
    """
    one, low, shift = np.uint64(1), np.uint64(63), np.uint64(6)
    twice, at, last = np.uint64(0), np.uint64(count), np.uint64(oi.size - 1)
    for p in range(vi.size):
        i = np.uint64(vi[p])
        word, bit = yours[i >> shift], i & low
        known = mine[i >> shift] >> bit & one
        twice |= word >> bit
        yours[i >> shift] = word | one << bit
        oi[at], ov[at] = vi[p], r * vv[p]
        oi[last] = p
        at += one - known
        last -= known
    return np.int64(at), twice & one != 0


@numba.njit(**SERIAL)
def _rank(index, bits, before):  # type: ignore[no-untyped-def]
    """Return how many bits are set below that of an index."""
    one, low, shift = np.uint64(1), np.uint64(63), np.uint64(6)
    i = np.uint64(index)
    below = bits[i >> shift] & ((one << (i & low)) - one)
    return before[i >> shift] + np.uint64(count_bits(below))


@numba.njit(**SERIAL)
def _add(ui, r, vi, vv, bits, before, oi, ov, end, places):  # type: ignore[no-untyped-def]
    """Add what *v* has of the indices of *u*; *bits* are of what both have.

    Until then the terms lie behind *end*, by rank.
    """
    one, low, shift = np.uint64(1), np.uint64(63), np.uint64(6)
    terms = ov[end:]
    for k in range(end + 1, oi.size):
        place = np.uint64(oi[k])
        terms[_rank(vi[place], bits, before)] = r * vv[place]
    count = np.uint64(0)
    for p in range(ui.size):
        i = np.uint64(ui[p])
        places[count] = p
        count += bits[i >> shift] >> (i & low) & one
    for k in range(count):
        place = np.uint64(places[k])
        ov[place] += terms[_rank(ui[place], bits, before)]


@numba.njit(**SERIAL)
def axpy(ui, uv, r, vi, vv, oi, ov, bits, places, drop):  # type: ignore[no-untyped-def]
    """Fill (oi, ov); return their count, or `DUPLICATES`, which go another way.

    *oi* and *ov* have room for both operands and one more; *bits* (3, words) are
    uninitialised, with a bit for each index, and so are *places* (entries of u + 1).
    """
    mine, yours, before = bits[0], bits[1], bits[2]
    for w in range(mine.size):
        mine[w] = yours[w] = 0
    if _mark(ui, mine):
        return DUPLICATES
    end, twice = _share(vi, vv, r, mine, yours, oi, ov, ui.size)
    if twice:
        return DUPLICATES
    total = np.uint64(0)
    for w in range(mine.size):
        before[w] = total
        mine[w] &= yours[w]
        total += np.uint64(count_bits(mine[w]))
    put(ui, oi)
    put(uv, ov)
    _add(ui, r, vi, vv, mine, before, oi, ov, end, places)
    return drop_zeros(oi, ov, end) if drop else end


def _signatures() -> tuple[tuple[Any, ...], ...]:
    return tuple(
        (i[::1], f[::1], f, i[::1], f[::1], i[::1], f[::1], types.uint64[:, ::1],
         types.int64[::1], types.boolean)
        for f in (types.float32, types.float64)
        for i in (types.int32, types.int64)
    )  # fmt: skip


ENTRIES = (Entry(axpy, _signatures()),)
