"""Attention and normalisation of tokens on the host.

A panel is a few vectors of query tokens of one item and head; its scores, a row a key,
stay in the first-level cache from one product to the next. Softmax then goes down the
columns, so that no step works across the lanes of a vector. What ``out`` is divided by
is applied as the second product is stored (Milakov and Gimelshein, "Online normalizer
calculation for softmax", 2018, do the division last for the same reason).
"""

from __future__ import annotations

import functools

import numba
import numpy as np
from numba import types

from nnz_kernels.api.attach import Attachable, Call
from nnz_kernels.api.attention import (
    AttentionSpec,
    check_attention,
    check_layer_norm_planes,
)
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._emit import address
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._frame import reader
from nnz_kernels.cpu._math import EXACT, _exp
from nnz_kernels.cpu._runtime import readable, thread_count
from nnz_kernels.cpu._simd import LANES, WIDTHS
from nnz_kernels.cpu._tile import invert_sums, normalise_columns, shift_columns, tile
from nnz_kernels.cpu.together import shares, together
from nnz_kernels.planes import Grid, token_grid

#: Vectors of a panel, at most: four rows of so many sums fill the registers.
_WIDEST = WIDTHS[4]
#: Vectors of tokens that are normalised together: their sums, and as many loads.
_STRIP = 8

#: Places in the table of an attention.
(
    BATCH, QUERIES, KEYS, HEADS, HEAD_DIM, VALUE_DIM, ASKED_LD, SEEN_LD,
    MASK_ITEM, MASK_HEAD, MASK_QUERY, MASK_KEY,
) = range(12)  # fmt: skip

_NOTHING = np.empty(0, np.float32)


@Attachable
def layer_norm_planes(
    x: HostArray,
    gamma: HostArray,
    beta: HostArray,
    eps: float,
    y: HostArray,
    grid: Grid,
    channels: int,
    /,
    *,
    threads: int,
) -> Call:
    check_layer_norm_planes(x, gamma, beta, y, grid, channels)
    ld = grid.ld
    arrays = (readable(x), readable(gamma), readable(beta), np.float32(eps), y)
    sizes = (grid.w, ld, channels)
    strips = -(-grid.w // (LANES * _STRIP))
    chunks = min(thread_count(threads, 4 * grid.w * channels), strips)
    behind = y[channels * ld :]
    parts = [
        (_NOTHING if first else behind, *arrays, *sizes, first, last)
        for first, last in shares(strips, chunks)
    ]
    return together(_normalise_call, _NORMS, parts)


@Attachable
def attention_planes(
    q: HostArray,
    k: HostArray,
    v: HostArray,
    mask: HostArray | None,
    out: HostArray,
    spec: AttentionSpec,
    /,
    *,
    threads: int,
) -> Call:
    check_attention(q, k, v, mask, out, spec)
    table, end = _table(spec, None if mask is None else mask.shape)
    added = _NOTHING if mask is None else readable(mask).reshape(-1)
    arrays = (readable(q), readable(k), readable(v), added, out, table)
    pairs = spec.batch * spec.heads
    work = pairs * spec.queries * spec.keys * (spec.head_dim + spec.value_dim)
    chunks = min(thread_count(threads, work), pairs)
    behind, scale = out[end:], np.float32(spec.scale)
    parts = [
        (_NOTHING if first else behind, *arrays, scale, first, last)
        for first, last in shares(pairs, chunks)
    ]
    return together(_attend_call, _PAIRS, parts)


@functools.lru_cache(maxsize=256)
def _table(spec: AttentionSpec, mask: tuple[int, ...] | None) -> tuple[HostArray, int]:
    """Return the sizes and strides that the loops need, and the end of the planes."""
    asked = token_grid(spec.batch * spec.queries).ld
    seen = token_grid(spec.batch * spec.keys).ld
    sizes = (spec.batch, spec.queries, spec.keys, spec.heads)
    steps, step = [0, 0, 0, 0], 1
    for axis, size in reversed(list(enumerate(mask or ()))):
        steps[axis] = step if size > 1 else 0
        step *= size
    places = (*sizes, spec.head_dim, spec.value_dim, asked, seen, *steps)
    return np.array(places, np.int64), spec.heads * spec.value_dim * asked


@numba.njit(**EXACT)
def _normalise(x, gamma, beta, eps, y, tokens, ld, channels, first, last):  # type: ignore[no-untyped-def]
    """Normalise the strips first..last-1 of equal numbers of vectors of tokens."""
    addresses = (address(x), address(y), address(gamma), address(beta))
    vectors = -(-tokens // LANES)
    strips = -(-vectors // _STRIP)
    for s in range(first, last):
        at = vectors * s // strips
        count = vectors * (s + 1) // strips - at
        sizes = (channels, ld, at * LANES)
        normalise_columns(_STRIP, count, sizes, eps, addresses)
        if s + 1 == strips:
            for c in range(channels):
                y[c * ld + tokens : (c + 1) * ld] = np.float32(0)


@numba.njit(**EXACT)
def _multiply(  # type: ignore[no-untyped-def]
    rows, vectors, taps, w, w_at, w_row, w_tap, x, x_at, x_ld, out, out_at, out_ld,
    factor,
):  # fmt: skip
    """Write ``factor * w x`` for a panel, four rows at a time."""
    addresses = (address(w), address(x), address(out), address(factor))
    steps = (taps, w_row, w_tap, x_ld, out_ld)
    whole = rows // 4 * 4
    for row in range(0, whole, 4):
        places = (w_at + row * w_row, x_at, out_at + row * out_ld)
        tile(4, _WIDEST, vectors, steps, places, addresses)
    if rows & 2:
        places = (w_at + whole * w_row, x_at, out_at + whole * out_ld)
        tile(2, _WIDEST, vectors, steps, places, addresses)
    if rows & 1:
        row = rows - 1
        places = (w_at + row * w_row, x_at, out_at + row * out_ld)
        tile(1, _WIDEST, vectors, steps, places, addresses)


@numba.njit(**EXACT)
def _add_mask(scores, ld, mask, at, t, count):  # type: ignore[no-untyped-def]
    """Add a mask to the scores of ``count`` queries, a row a key."""
    for j in range(t[KEYS]):
        place = at + j * t[MASK_KEY]
        if t[MASK_QUERY] == 0:
            value = mask[place]
            for i in range(ld):
                scores[j * ld + i] += value
        else:
            for i in range(count):
                scores[j * ld + i] += mask[place + i * t[MASK_QUERY]]


@numba.njit(**EXACT)
def _softmax(scores, vectors, keys, inverse):  # type: ignore[no-untyped-def]
    """Turn scores into weights, yet to be multiplied by the inverse of their sums."""
    start = address(scores)
    shift_columns(_WIDEST, vectors, keys, start)
    for p in range(keys * vectors * LANES):
        scores[np.uint64(p)] = _exp(scores[np.uint64(p)])
    invert_sums(_WIDEST, vectors, keys, start, address(inverse))


@numba.njit(**EXACT)
def _attend(q, k, v, mask, out, t, scale, first, last):  # type: ignore[no-untyped-def]
    """Compute the pairs first..last-1 of item and head."""
    queries, keys, heads, dim = t[QUERIES], t[KEYS], t[HEADS], t[HEAD_DIM]
    value_dim, ld, seen = t[VALUE_DIM], t[ASKED_LD], t[SEEN_LD]
    vectors = -(-queries // LANES)
    panels = -(-vectors // _WIDEST)
    scores = np.empty(keys * _WIDEST * LANES, np.float32)
    spare = np.empty(value_dim * _WIDEST * LANES, np.float32)
    inverse = np.empty(_WIDEST * LANES, np.float32)
    factor = np.full(_WIDEST * LANES, scale, np.float32)
    for pair in range(first, last):
        item, head = pair // heads, pair % heads
        k_at = head * dim * seen + item * keys
        v_at = head * value_dim * seen + item * keys
        for panel in range(panels):
            start = vectors * panel // panels
            count = vectors * (panel + 1) // panels - start
            start, width = start * LANES, count * LANES
            there = min(width, queries - start)
            column = item * queries + start
            q_at = head * dim * ld + column
            _multiply(
                keys, count, dim, k, k_at, 1, seen, q, q_at, ld, scores, 0, width,
                factor,
            )  # fmt: skip
            if mask.size > 0:
                at = item * t[MASK_ITEM] + head * t[MASK_HEAD] + start * t[MASK_QUERY]
                _add_mask(scores, width, mask, at, t, there)
            _softmax(scores, count, keys, inverse)
            out_at = head * value_dim * ld + column
            # Lanes past the last query belong to the next item or to the next feature,
            # unless there is room for them at the end of a row.
            if there == width or (item + 1 == t[BATCH] and column + width <= ld):
                _multiply(
                    value_dim, count, keys, v, v_at, seen, 1, scores, 0, width, out,
                    out_at, ld, inverse,
                )  # fmt: skip
                continue
            _multiply(
                value_dim, count, keys, v, v_at, seen, 1, scores, 0, width, spare, 0,
                width, inverse,
            )  # fmt: skip
            for row in range(value_dim):
                for i in range(there):
                    out[out_at + row * ld + i] = spare[row * width + i]
        if item + 1 == t[BATCH]:
            for row in range(head * value_dim, (head + 1) * value_dim):
                out[row * ld + (item + 1) * queries : (row + 1) * ld] = np.float32(0)


_F, _I, _V = types.float32[::1], types.int64, types.float32
_NORM = (_F, _F, _F, _V, _F, _I, _I, _I)
_PLANES = (_F, _F, _F, _F, _F, types.int64[::1], _V)

#: What frames hold: what is to be zeroed, then the arguments.
_NORMS = (_F, *_NORM, _I, _I)
_PAIRS = (_F, *_PLANES, _I, _I)

_read_norms, _read_pairs = reader(_NORMS), reader(_PAIRS)


@numba.njit(**EXACT)
def _normalise_call(frame):  # type: ignore[no-untyped-def]
    """Normalise all strips of a frame, and zero what lies behind the last plane."""
    arguments = _read_norms(frame)
    _normalise(*arguments[1:])
    arguments[0][:] = np.float32(0)


@numba.njit(**EXACT)
def _attend_call(frame):  # type: ignore[no-untyped-def]
    """Compute all pairs of a frame, and zero what lies behind the last plane."""
    arguments = _read_pairs(frame)
    _attend(*arguments[1:])
    arguments[0][:] = np.float32(0)


ENTRIES = (
    Entry(_normalise_call, ((_I,),)),
    Entry(_attend_call, ((_I,),)),
)
