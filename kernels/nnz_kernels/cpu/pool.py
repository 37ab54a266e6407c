"""Pooling of planes on the host, one row of the result at a time."""

from __future__ import annotations

import functools

import numba
import numpy as np
from numba import types

from nnz_kernels.api.attach import Attachable, Call
from nnz_kernels.api.conv import check_buffer
from nnz_kernels.api.pool import PoolSpec, check_global_pool, check_pool
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._emit import address, forward
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._frame import reader, sealed
from nnz_kernels.cpu._planes import SHORTEST, pool_row
from nnz_kernels.cpu._runtime import FASTMATH, SERIAL, readable, thread_count
from nnz_kernels.cpu._simd import LANES
from nnz_kernels.cpu.together import shares, together
from nnz_kernels.planes import Grid

_LOWEST = np.float32(-np.inf)
_NOTHING = np.empty(0, np.float32)


@Attachable
def max_pool(
    x: HostArray,
    xg: Grid,
    y: HostArray,
    yg: Grid,
    channels: int,
    spec: PoolSpec,
    /,
    *,
    threads: int,
) -> Call:
    return _pool(x, xg, y, yg, channels, spec, True, threads)


@Attachable
def average_pool(
    x: HostArray,
    xg: Grid,
    y: HostArray,
    yg: Grid,
    channels: int,
    spec: PoolSpec,
    /,
    *,
    threads: int,
) -> Call:
    return _pool(x, xg, y, yg, channels, spec, False, threads)


@Attachable
def global_average_pool(
    x: HostArray,
    xg: Grid,
    y: HostArray,
    yg: Grid,
    channels: int,
    /,
    *,
    threads: int,
) -> Call:
    check_global_pool(xg, yg)
    check_buffer("x", x, xg.size(channels))
    check_buffer("y", y, yg.size(channels))
    xt, places = _places(xg, yg)
    arguments = (readable(x), y, xt, yg.ld, places, channels)
    return sealed(_average_call, _AVERAGE, y[channels * yg.ld :], *arguments)


@functools.lru_cache(maxsize=64)
def _places(xg: Grid, yg: Grid) -> tuple[HostArray, HostArray]:
    """Return the table of the images, and where the average of each belongs."""
    at = [yg.offset(*place) for place in np.ndindex(yg.n, yg.h, yg.w)]
    return _table(xg), np.array(at, np.int64)


def _pool(
    x: HostArray,
    xg: Grid,
    y: HostArray,
    yg: Grid,
    channels: int,
    spec: PoolSpec,
    largest: bool,
    threads: int,
) -> Call:
    tables = _tables(xg, yg, spec, largest)
    check_buffer("x", x, xg.size(channels))
    check_buffer("y", y, yg.size(channels))
    work = channels * yg.pixels * spec.kernel[0] * spec.kernel[1]
    chunks = min(thread_count(threads, work), channels)
    behind, arguments = y[channels * yg.ld :], (readable(x), y, *tables, largest)
    parts = [
        (_NOTHING if first else behind, *arguments, first, last)
        for first, last in shares(channels, chunks)
    ]
    return together(_pool_call, _POOL, parts)


def _table(grid: Grid) -> HostArray:
    places = (grid.ld, grid.lead, grid.rows, grid.pitch, grid.n, grid.h, grid.w)
    return np.array(places, np.int64)


@functools.lru_cache(maxsize=256)
def _tables(xg: Grid, yg: Grid, spec: PoolSpec, largest: bool) -> tuple[HostArray, ...]:
    """Return both grids, the window, where it is inside, and the shares of sums."""
    check_pool(xg, yg, spec)
    window = (*spec.kernel, *spec.strides, *spec.dilations)
    axes = [_axis((xg.h, xg.w)[i], (yg.h, yg.w)[i], spec, i) for i in (0, 1)]
    shares = [
        np.ones(size, np.float32) if largest else _shares(extent, size, spec, axis)
        for axis, (extent, size) in enumerate(((xg.h, yg.h), (xg.w, yg.w)))
    ]
    return _table(xg), _table(yg), np.array(window, np.int64), *axes, *shares


def _axis(size: int, outputs: int, spec: PoolSpec, axis: int) -> HostArray:
    """Return for each window where it starts, and which of its taps are inside."""
    step, taps = spec.dilations[axis], np.arange(spec.kernel[axis])
    starts = np.arange(outputs) * spec.strides[axis] - spec.pads[axis]
    places = starts[:, None] + taps * step
    inside = (places >= 0) & (places < size)
    first = np.where(inside.any(axis=1), inside.argmax(axis=1), 0)
    last = first + inside.sum(axis=1)
    return np.stack([starts, first, last], axis=1).astype(np.int64)


def _shares(size: int, outputs: int, spec: PoolSpec, axis: int) -> HostArray:
    """Return one over the places that each window counts along an axis."""
    starts = np.arange(outputs)[:, None] * spec.strides[axis] - spec.pads[axis]
    places = starts + np.arange(spec.kernel[axis]) * spec.dilations[axis]
    low, high = 0, size
    if spec.count_include_pad:
        low, high = -spec.pads[axis], size + spec.pads[axis + 2]
    counts = ((places >= low) & (places < high)).sum(axis=1)
    with np.errstate(divide="ignore"):
        shares: HostArray = (1 / counts).astype(np.float32)
    return shares


@numba.njit(**SERIAL)
def _window(x, at, lines, line, steps, step, largest):  # type: ignore[no-untyped-def]
    """Return the maximum or the sum of one window.

    Places are unsigned, which saves the check for negative ones.
    """
    if not largest:
        total = np.float32(0)
        for ky in range(lines):
            for kx in range(steps):
                total += x[np.uint64(at + ky * line + kx * step)]
        return total
    best = _LOWEST
    for ky in range(lines):
        top = _LOWEST
        for kx in range(steps):
            v = x[np.uint64(at + ky * line + kx * step)]
            # A NaN is not larger, and nothing is larger than it.
            top = v if v > top or v != v else top
        best = top if top > best or top != top else best
    return best


@numba.njit(**SERIAL)
def _pool_planes(  # type: ignore[no-untyped-def]
    x, y, xt, yt, window, down, across, row_share, column_share, largest, first, last
):  # fmt: skip
    """Pool channels first..last-1: vectors inside of the image, windows at its edge."""
    columns, kw, stride = yt[6], window[1], window[3]
    line, step = window[4] * xt[3], window[5]
    # Windows from..to are whole.
    start = 0
    while start < columns and (across[start, 1] > 0 or across[start, 2] < kw):
        start += 1
    stop = start
    while stop < columns and across[stop, 2] == kw:
        stop += 1
    if stride > 2 or stop - start < SHORTEST:
        stop = start
    lanes = LANES if stop - start >= LANES else SHORTEST
    kind = (np.int64(lanes), np.int64(stride), np.int64(largest))
    for c in range(first, last):
        done = c * yt[0]
        for image in range(yt[4]):
            for r in range(yt[5]):
                to = c * yt[0] + yt[1] + (image * yt[2] + r) * yt[3]
                y[done:to] = np.float32(0)
                done = to + columns
                lines = down[r, 2] - down[r, 1]
                row = image * xt[2] + down[r, 0] + down[r, 1] * window[4]
                at = c * xt[0] + xt[1] + row * xt[3]
                for q in range(columns):
                    if start <= q < stop:
                        continue
                    steps = across[q, 2] - across[q, 1]
                    place = at + across[q, 0] + across[q, 1] * step
                    v = _window(x, place, lines, line, steps, step, largest)
                    y[to + q] = v if largest else v * row_share[r] * column_share[q]
                if stop > start:
                    numbers = (line, lines, step, kw, stop - start)
                    pointers = (
                        forward(address(x), at + across[start, 0]),
                        forward(address(y), to + start),
                    )  # fmt: skip
                    share = row_share[r] * column_share[start]
                    pool_row(kind, share, numbers, pointers)
        y[done : (c + 1) * yt[0]] = np.float32(0)


@numba.njit(fastmath=FASTMATH, **SERIAL)
def _global_average(x, y, xt, y_size, places, channels):  # type: ignore[no-untyped-def]
    """Average every image of every channel; ``places`` are in a channel of zeros."""
    span = (xt[5] - 1) * xt[3] + xt[6]
    for c in range(channels):
        done = c * y_size
        for image in range(places.size):
            at = c * xt[0] + xt[1] + image * xt[2] * xt[3]
            total = np.float32(0)
            for p in range(at, at + span):  # what is between the rows is zero
                total += x[np.uint64(p)]
            to = c * y_size + places[image]
            y[done:to] = np.float32(0)
            y[to] = total / np.float32(xt[5] * xt[6])
            done = to + 1
        y[done : (c + 1) * y_size] = np.float32(0)


_F, _I, _T = types.float32[::1], types.int64, types.int64[::1]
_GRIDS = (_T, _T, _T, types.int64[:, ::1], types.int64[:, ::1], _F, _F, types.boolean)

#: What frames hold: what is to be zeroed, then the arguments.
_POOL = (_F, _F, _F, *_GRIDS, _I, _I)
_AVERAGE = (_F, _F, _F, _T, _I, _T, _I)

_read_pool, _read_average = reader(_POOL), reader(_AVERAGE)


@numba.njit(**SERIAL)
def _pool_call(frame):  # type: ignore[no-untyped-def]
    """Pool all channels of a frame, and zero what lies behind the last plane."""
    arguments = _read_pool(frame)
    _pool_planes(*arguments[1:])
    arguments[0][:] = np.float32(0)


@numba.njit(**SERIAL)
def _average_call(frame):  # type: ignore[no-untyped-def]
    """Average what a frame holds, and zero what lies behind the last plane."""
    arguments = _read_average(frame)
    _global_average(*arguments[1:])
    arguments[0][:] = np.float32(0)


ENTRIES = (
    Entry(_pool_call, ((_I,),)),
    Entry(_average_call, ((_I,),)),
)
