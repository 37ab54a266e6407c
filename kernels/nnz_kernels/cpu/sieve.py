"""Sums of two sparse vectors that hardly share an index, in a dimension without bound.

A table of stamps is looked up for every entry, though nearly all have an index of
their own. Here a bitmap of hashed indices, a few times as many bits as there are
entries, lets those pass: whoever meets no bit was not there before (Bloom 1970, with
one hash). Only what shares a bit with another is looked up by its index.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import SERIAL
from nnz_kernels.cpu._sums import DUPLICATES, drop_zeros, put, put_scaled

#: What `axpy` returns where too many share a bit for this to be the shorter way.
MANY = -2

#: Bits an entry, rounded up to a power of two; and of how many entries one may be held.
BITS, HELD = 16, 8


@numba.njit(**SERIAL)
def _bit(index, shift, factor):  # type: ignore[no-untyped-def]
    """Return a hash: multiply-shift, Dietzfelbinger et al. 1997."""
    return np.uint64(index) * factor >> shift


@numba.njit(**SERIAL)
def _mark(indices, shift, factor, seen, mine, held, count):  # type: ignore[no-untyped-def]
    """Set bits in *mine*; append the entries that met one there or in *seen*."""
    one, low, six = np.uint64(1), np.uint64(63), np.uint64(6)
    at = np.uint64(count)
    for p in range(indices.size):
        bit = _bit(indices[p], shift, factor)
        word = mine[bit >> six]
        held[at] = p
        at += (word | seen[bit >> six]) >> (bit & low) & one
        mine[bit >> six] = word | one << (bit & low)
    return np.int64(at)


@numba.njit(**SERIAL)
def _keep(indices, shift, factor, held, shared):  # type: ignore[no-untyped-def]
    """Set the bits of some entries in *shared*."""
    one, low, six = np.uint64(1), np.uint64(63), np.uint64(6)
    for k in range(held.size):
        bit = _bit(indices[held[k]], shift, factor)
        shared[bit >> six] |= one << (bit & low)


@numba.njit(**SERIAL)
def _sharing(indices, shift, factor, shared, held):  # type: ignore[no-untyped-def]
    """List all entries whose bits are in *shared*, in order; return how many."""
    one, low, six = np.uint64(1), np.uint64(63), np.uint64(6)
    at = np.uint64(0)
    for p in range(indices.size):
        bit = _bit(indices[p], shift, factor)
        held[at] = p
        at += shared[bit >> six] >> (bit & low) & one
    return np.int64(at)


@numba.njit(**SERIAL)
def _find(table, keys, shift, factor, index):  # type: ignore[no-untyped-def]
    """Return the cell of an index, or the free one where it belongs."""
    last = np.uint64(table.size - 1)
    cell = _bit(index, shift, factor)
    while table[cell] >= 0 and keys[cell] != index:
        cell = cell + np.uint64(1) & last
    return cell


@numba.njit(**SERIAL)
def _matches(ui, vi, factor, mine, yours, pairs):  # type: ignore[no-untyped-def]
    """List the places of indices that both have, in the order of *v*.

    Return how many, or -1 where one operand has an index twice.
    """
    cells, shift = 16, np.uint64(60)
    while cells < 2 * (mine.size + yours.size):
        cells, shift = 2 * cells, shift - np.uint64(1)
    table, keys = np.full(cells, -1, np.int64), np.empty(cells, np.int64)
    for p in mine:
        cell = _find(table, keys, shift, factor, ui[p])
        if table[cell] >= 0:
            return -1
        table[cell], keys[cell] = p, ui[p]
    count, taken = 0, ui.size
    for q in yours:
        cell = _find(table, keys, shift, factor, vi[q])
        if table[cell] >= taken:
            return -1
        if table[cell] >= 0:
            pairs[0, count], pairs[1, count] = table[cell], q
            count += 1
        table[cell], keys[cell] = taken, vi[q]
    return count


@numba.njit(**SERIAL)
def axpy(ui, uv, r, vi, vv, oi, ov, bits, shift, factor, lists, drop):  # type: ignore[no-untyped-def]
    """Fill (oi, ov); return their count, or why another way has to be gone.

    *oi* and *ov* have room for both operands; *bits* (3, words) and *lists*
    (2, entries of the longer + 1) are uninitialised; *shift* leaves as many bits of 64
    as tell the bits of a row of *bits* apart; *factor* is odd.
    """
    mine, yours, shared = bits[0], bits[1], bits[2]
    bits[...] = 0
    most = (ui.size + vi.size) // HELD
    first = _mark(ui, shift, factor, mine, mine, lists[0], 0)
    second = _mark(vi, shift, factor, mine, yours, lists[1], 0)
    if first + second > most:
        return MANY
    _keep(ui, shift, factor, lists[0, :first], shared)
    _keep(vi, shift, factor, lists[1, :second], shared)
    first = _sharing(ui, shift, factor, shared, lists[0])
    second = _sharing(vi, shift, factor, shared, lists[1])
    pairs = np.empty((2, second), np.int64)
    common = _matches(ui, vi, factor, lists[0, :first], lists[1, :second], pairs)
    if common < 0:
        return DUPLICATES
    count = ui.size
    put(ui, oi)
    put(uv, ov)
    start = 0
    for k in range(common + 1):
        stop = pairs[1, k] if k < common else vi.size
        put(vi[start:stop], oi[count:])
        put_scaled(r, vv[start:stop], ov[count:])
        count += stop - start
        start = stop + 1
        if k < common:
            ov[pairs[0, k]] += r * vv[stop]
    return drop_zeros(oi, ov, count) if drop else count


def _signatures() -> tuple[tuple[Any, ...], ...]:
    return tuple(
        (i[::1], f[::1], f, i[::1], f[::1], i[::1], f[::1], types.uint64[:, ::1],
         types.uint64, types.uint64, types.int64[:, ::1], types.boolean)
        for f in (types.float32, types.float64)
        for i in (types.int32, types.int64)
    )  # fmt: skip


ENTRIES = (Entry(axpy, _signatures()),)
