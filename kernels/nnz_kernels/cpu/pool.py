"""Pooling of planes on the host, one row of the result at a time."""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from nnz_kernels.api.conv import check_buffer
from nnz_kernels.api.pool import PoolSpec, check_global_pool, check_pool
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import FASTMATH, PARALLEL, SERIAL, readable, thread_count
from nnz_kernels.planes import Grid

_LOWEST = np.float32(-np.inf)


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
) -> None:
    ones = np.ones(max(yg.h, yg.w), np.float32)  # a maximum is not divided
    _pool(x, xg, y, yg, channels, spec, (True, ones, ones), threads)


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
) -> None:
    rows, columns = (
        _shares((xg.h, xg.w)[axis], (yg.h, yg.w)[axis], spec, axis) for axis in (0, 1)
    )
    _pool(x, xg, y, yg, channels, spec, (False, rows, columns), threads)


def global_average_pool(
    x: HostArray,
    xg: Grid,
    y: HostArray,
    yg: Grid,
    channels: int,
    /,
    *,
    threads: int,
) -> None:
    check_global_pool(xg, yg)
    check_buffer("x", x, xg.size(channels))
    check_buffer("y", y, yg.size(channels))
    places = [
        yg.offset(*place) for place in np.ndindex(yg.n, yg.h, yg.w)
    ]  # one for each image, in order
    y[...] = 0
    _global_average(
        readable(x), y, _table(xg), yg.ld, np.array(places, np.int64), channels
    )


def _pool(
    x: HostArray,
    xg: Grid,
    y: HostArray,
    yg: Grid,
    channels: int,
    spec: PoolSpec,
    mode: tuple[bool, HostArray, HostArray],
    threads: int,
) -> None:
    check_pool(xg, yg, spec)
    check_buffer("x", x, xg.size(channels))
    check_buffer("y", y, yg.size(channels))
    window = (*spec.kernel, *spec.strides, *spec.pads[:2], *spec.dilations)
    tables = (_table(xg), _table(yg), np.array(window, np.int64))
    work = channels * yg.pixels * spec.kernel[0] * spec.kernel[1]
    chunks = min(thread_count(threads, work), channels)
    if chunks == 1:
        _pool_planes(readable(x), y, *tables, *mode, 0, channels)
    else:
        _pool_threads(chunks, readable(x), y, *tables, *mode, channels)
    y[channels * yg.ld :] = 0


def _table(grid: Grid) -> HostArray:
    places = (grid.ld, grid.lead, grid.rows, grid.pitch, grid.n, grid.h, grid.w)
    return np.array(places, np.int64)


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


@numba.njit(fastmath={"contract", "nsz"}, **SERIAL)
def _gather(x, at, step, y, to, count, largest):  # type: ignore[no-untyped-def]
    """Take a run of floats, every *step*-th, into a run of maxima or sums."""
    if largest and step == 1:
        for q in range(count):
            v, best = x[np.uint64(at + q)], y[np.uint64(to + q)]
            best = v if v > best else best
            # A NaN is not larger, and nothing is larger than it.
            y[np.uint64(to + q)] = v if v != v else best
    elif largest and step == 2:
        for q in range(count):
            v, best = x[np.uint64(at + 2 * q)], y[np.uint64(to + q)]
            best = v if v > best else best
            y[np.uint64(to + q)] = v if v != v else best
    elif largest:
        for q in range(count):
            v, best = x[np.uint64(at + step * q)], y[np.uint64(to + q)]
            best = v if v > best else best
            y[np.uint64(to + q)] = v if v != v else best
    elif step == 1:
        for q in range(count):
            y[np.uint64(to + q)] += x[np.uint64(at + q)]
    elif step == 2:
        for q in range(count):
            y[np.uint64(to + q)] += x[np.uint64(at + 2 * q)]
    else:
        for q in range(count):
            y[np.uint64(to + q)] += x[np.uint64(at + step * q)]


@numba.njit(fastmath={"contract", "nsz"}, **SERIAL)
def _pool_planes(  # type: ignore[no-untyped-def]
    x, y, xt, yt, window, largest, row_share, column_share, first, last
):  # fmt: skip
    """Pool channels first..last-1: rows of the window first, then its columns.

    Places are unsigned, which saves the check for negative ones.
    """
    height, width, columns = xt[5], xt[6], yt[6]
    kh, kw, sh, sw, top, left, dh, dw = (
        window[0], window[1], window[2], window[3], window[4], window[5], window[6],
        window[7],
    )  # fmt: skip
    nothing = _LOWEST if largest else np.float32(0)
    reach = (columns - 1) * sw + (kw - 1) * dw + 1
    line = np.full(max(left + width, reach), nothing, np.float32)
    for c in range(first, last):
        y[c * yt[0] : (c + 1) * yt[0]] = np.float32(0)
        for image in range(yt[4]):
            for r in range(yt[5]):
                to = c * yt[0] + yt[1] + (image * yt[2] + r) * yt[3]
                for p in range(left, left + width):
                    line[np.uint64(p)] = nothing
                for ky in range(kh):
                    row = r * sh - top + ky * dh
                    if row < 0 or row >= height:
                        continue
                    at = c * xt[0] + xt[1] + (image * xt[2] + row) * xt[3]
                    _gather(x, at, 1, line, left, width, largest)
                for q in range(to, to + columns):
                    y[np.uint64(q)] = nothing
                for kx in range(kw):
                    _gather(line, kx * dw, sw, y, to, columns, largest)
                if not largest:
                    for q in range(columns):
                        y[np.uint64(to + q)] *= row_share[r] * column_share[q]


@numba.njit(**PARALLEL)
def _pool_threads(  # type: ignore[no-untyped-def]
    chunks, x, y, xt, yt, window, largest, row_share, column_share, channels
):  # fmt: skip
    """Share the channels out over threads."""
    for c in numba.prange(chunks):
        _pool_planes(
            x, y, xt, yt, window, largest, row_share, column_share,
            channels * c // chunks, channels * (c + 1) // chunks,
        )  # fmt: skip


@numba.njit(fastmath=FASTMATH, **SERIAL)
def _global_average(x, y, xt, ld, places, channels):  # type: ignore[no-untyped-def]
    """Average every image of every channel."""
    for c in range(channels):
        for image in range(places.size):
            total = np.float64(0)
            for row in range(xt[5]):
                at = c * xt[0] + xt[1] + (image * xt[2] + row) * xt[3]
                line = np.float32(0)
                for p in range(at, at + xt[6]):
                    line += x[p]
                total += line
            y[c * ld + places[image]] = np.float32(total / (xt[5] * xt[6]))


_F, _I, _T = types.float32[::1], types.int64, types.int64[::1]
_MODE = (types.boolean, _F, _F)

ENTRIES = (
    Entry(_pool_planes, ((_F, _F, _T, _T, _T, *_MODE, _I, _I),)),
    Entry(_pool_threads, ((_I, _F, _F, _T, _T, _T, *_MODE, _I),)),
    Entry(_global_average, ((_F, _F, _T, _I, _T, _I),)),
)
