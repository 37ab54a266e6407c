"""The loops of sparse vectors: epoch stamps instead of a cleared workspace.

A cell of the workspace holds ``epoch << 32 | position``. Where the dimension is small
the cell of an index is the index itself; where it dwarfs the number of entries the
cells are an open-addressing hash table sized to the entries, whose keys are the
output's own indices. Each call takes two epochs: the second marks what the second
operand has already touched. Multiply and add round apart, as they are written. Two
operands that are both in order need no table: they are walked side by side.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import PARALLEL, SERIAL
from nnz_kernels.cpu._sums import drop_zeros, put

#: Stamps are cleared when the epoch would pass 31 bits: once in 2**30 calls.
LAST_EPOCH = 2**31 - 4

#: The half of a stamp that holds the position.
LOW = 0xFFFFFFFF

#: Policies for duplicates.
SUM, ERROR, LAST = 0, 1, 2


@numba.njit(**SERIAL)
def _begin(stamps):  # type: ignore[no-untyped-def]
    """Take two epochs before anything is written; return the first."""
    epoch = stamps[0] + 2
    if epoch > LAST_EPOCH:
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
    # A multiplier that nobody can know: indices that all meet in one cell cannot be
    # chosen (multiply-shift, Dietzfelbinger et al., 1997).
    factor = (epoch * np.int64(0x1E3779B97F4A7C15)) | np.int64(1)
    mixed = np.int64(index) * factor
    place = (mixed >> 40 ^ mixed >> 20) & mask
    while True:
        stamp = stamps[place + 1]
        if stamp >> 32 < epoch or keys[stamp & LOW] == index:
            return place + 1
        place = (place + 1) & mask


@numba.njit(**SERIAL)
def _ascends(indices):  # type: ignore[no-untyped-def]
    """Return whether each index is above the one before; looks at all, in vectors."""
    wrong = 0
    for p in range(1, indices.size):
        wrong += indices[p] <= indices[p - 1]
    return wrong == 0


@numba.njit(**SERIAL)
def _walk(ui, uv, r, vi, vv, oi, ov):  # type: ignore[no-untyped-def]
    """Fill (oi, ov) from operands in order; return the count.

    Which operand is ahead cannot be foretold, so nothing branches on it.
    """
    count = ui.size
    put(ui, oi)
    put(uv, ov)
    p, q = 0, 0
    while p < ui.size and q < vi.size:
        a, b = ui[p], vi[q]
        term = r * vv[q]
        oi[count], ov[count] = b, term  # stays, if the index is not that of u
        old = ov[p]
        ov[p] = old + term if a == b else old
        count += b < a
        p += a <= b
        q += b <= a
    for k in range(q, vi.size):
        oi[count], ov[count] = vi[k], r * vv[k]
        count += 1
    return count


@numba.njit(**SERIAL)
def axpy(ui, uv, r, vi, vv, oi, ov, stamps, dense, mode, drop):  # type: ignore[no-untyped-def]
    """Fill (oi, ov); return their count, or -1 - position of a refused duplicate."""
    if _ascends(ui) and _ascends(vi):
        count = _walk(ui, uv, r, vi, vv, oi, ov)
        return drop_zeros(oi, ov, count) if drop else count
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
        elif mode == SUM:
            ov[stamp & LOW] += uv[p]
        elif mode == LAST:
            ov[stamp & LOW] = uv[p]
        else:
            return -1 - p
    own = ov[: count if mode == LAST else 0].copy()
    for p in range(vi.size):
        term = r * vv[p]
        cell = _cell(stamps, mask, epoch, vi[p], oi)
        stamp = stamps[cell]
        at = stamp & LOW
        if stamp >> 32 < epoch:
            stamps[cell] = (epoch + 1) << 32 | count
            oi[count] = vi[p]
            ov[count] = term
            count += 1
        elif mode == SUM:
            ov[at] += term
        elif stamp >> 32 == epoch:
            stamps[cell] = (epoch + 1) << 32 | at
            ov[at] += term
        elif mode == LAST:
            ov[at] = own[at] + term if at < own.size else term
        else:
            return -1 - ui.size - p
    return drop_zeros(oi, ov, count) if drop else count


@numba.njit(**SERIAL)
def _dot_in_order(ui, uv, vi, vv):  # type: ignore[no-untyped-def]
    """Multiply what two operands in order have in common."""
    total = 0.0
    p, q = 0, 0
    while p < ui.size and q < vi.size:
        a, b = ui[p], vi[q]
        if a == b:
            total += np.float64(uv[p]) * vv[q]
        p += a <= b
        q += b <= a
    return total


@numba.njit(**SERIAL)
def dot(ui, uv, vi, vv, stamps, dense):  # type: ignore[no-untyped-def]
    """Put the shorter operand into the table, stream the longer past it."""
    if ui.size > vi.size:
        ui, uv, vi, vv = vi, vv, ui, uv
    if _ascends(ui) and _ascends(vi):
        return _dot_in_order(ui, uv, vi, vv)
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
            sums[stamp & LOW] += uv[p]
    total = 0.0
    for p in range(vi.size):
        stamp = stamps[_cell(stamps, mask, epoch, vi[p], keys)]
        if stamp >> 32 >= epoch:
            total += sums[stamp & LOW] * vv[p]
    return total


@numba.njit(**SERIAL)
def scatter(ui, uv, out):  # type: ignore[no-untyped-def]
    for p in range(ui.size):
        out[ui[p]] += uv[p]


@numba.njit(**SERIAL)
def combine(  # type: ignore[no-untyped-def]
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
                ov[stamp & LOW] += term
            else:
                stamps[cell] = epoch << 32 | count
                oi[count] = indices[p]
                ov[count] = term
                count += 1
    return drop_zeros(oi, ov, count) if drop else count


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
def axpy_many(  # type: ignore[no-untyped-def]
    uptr, ui, uv, r, vptr, vi, vv, oi, ov, counts, stamps, dense, mode, drop, chunks
):
    for c in numba.prange(chunks):
        stop = _pair_boundary(uptr, vptr, c + 1, chunks)
        for k in range(_pair_boundary(uptr, vptr, c, chunks), stop):
            a, b = uptr[k], uptr[k + 1]
            s, t = vptr[k], vptr[k + 1]
            counts[k] = axpy(
                ui[a:b], uv[a:b], r[k], vi[s:t], vv[s:t],
                oi[a + s : b + t], ov[a + s : b + t], stamps[c], dense, mode, drop,
            )  # fmt: skip


@numba.njit(**SERIAL)
def close_gaps(uptr, vptr, optr, oi, ov):  # type: ignore[no-untyped-def]
    """Move what `axpy_many` wrote for each pair up to where *optr* has it."""
    for k in range(optr.size - 1):
        start, at = uptr[k] + vptr[k], optr[k]
        if start > at:
            for p in range(optr[k + 1] - at):
                oi[at + p] = oi[start + p]
                ov[at + p] = ov[start + p]


@numba.njit(**PARALLEL)
def dot_many(  # type: ignore[no-untyped-def]
    uptr, ui, uv, vptr, vi, vv, out, stamps, dense, chunks
):
    for c in numba.prange(chunks):
        stop = _pair_boundary(uptr, vptr, c + 1, chunks)
        for k in range(_pair_boundary(uptr, vptr, c, chunks), stop):
            a, b = uptr[k], uptr[k + 1]
            s, t = vptr[k], vptr[k + 1]
            out[k] = dot(ui[a:b], uv[a:b], vi[s:t], vv[s:t], stamps[c], dense)


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
    Entry(axpy, _signatures("ifrififSBNB")),
    Entry(dot, _signatures("ififSB")),
    Entry(scatter, _signatures("iff")),
    Entry(combine, _signatures("iffiififSBB")),
    Entry(axpy_many, _signatures("iiffiififSMBNBN")),
    Entry(close_gaps, _signatures("iiiif")),
    Entry(dot_many, _signatures("iifiifDMBN")),
)
