"""The three stages of F(2x2, 3x3): sums of pixels, sixteen products, pixels again.

A *strip* of rows of tiles goes through all three before the next begins, so that what
lies between them stays in a cache; see ``winograd``.

All of the jitted code is in this file: numba's cache does not see changes elsewhere.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types

from nnz_kernels.cpu._emit import address, forward
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._frame import reader
from nnz_kernels.cpu._math import EXACT, NO_ACTIVATION, _activate
from nnz_kernels.cpu._micro import DENSE, ROW, ROWS, group
from nnz_kernels.cpu._runtime import SERIAL
from nnz_kernels.cpu._simd import LANES, TALLEST, WIDTHS
from nnz_kernels.cpu._winograd import PLACES, tiles_in, tiles_out
from nnz_kernels.planes import LINE

#: Lanes of a vector for rows of fewer tiles than a register has lanes.
SHORT = min(LANES, 8)

_WIDEST = WIDTHS[TALLEST]

#: Floats between products, so that the sixteen do not meet in the same sets of a cache.
APART = 4 * LINE

#: Columns of the table of the two grids: of each floats from channel to channel, to the
#: first pixel (for x: to its first tap), from image to image, from row to row; rows of
#: x that may be read, counted from the first tap; then rows and pixels of a row of y,
#: and images; input channels; rows of tiles of an image, tiles of a row, rows of a
#: strip; floats from one input or sum of a product to the next, and from one product to
#: the next in inputs and in sums; runs of a product; and whether rows of pixels are
#: stored in place.
(
    X_LD, X_AT, X_IMAGE, X_PITCH, X_ROWS, Y_LD, Y_AT, Y_IMAGE, Y_PITCH, HEIGHT, WIDTH,
    IMAGES, INPUTS, DOWN, ACROSS, STRIP, LD, IN_STEP, OUT_STEP, RUNS, IN_PLACE,
) = range(21)  # fmt: skip


@numba.njit(**EXACT)
def _finish(kind, y, start, stop):  # type: ignore[no-untyped-def]
    """Apply an activation, under flags of its own."""
    _activate(kind, y, start, stop)


@numba.njit(**SERIAL)
def _inputs(table, first, last, x, out):  # type: ignore[no-untyped-def]
    """Take the pixels of rows first..last-1 of tiles to the inputs of products."""
    across, pitch, end = table[ACROSS], table[X_PITCH], table[X_ROWS] - 1
    for channel in range(table[INPUTS]):
        start = table[X_AT] + channel * table[X_LD]
        for tile_row in range(first, last):
            image, row = divmod(tile_row, table[DOWN])
            at = forward(address(x), start + image * table[X_IMAGE])
            # The last row of an odd image's last tiles is read for no pixel.
            pointers = (
                forward(at, 2 * row * pitch),
                forward(at, (2 * row + 1) * pitch),
                forward(at, (2 * row + 2) * pitch),
                forward(at, min(2 * row + 3, end) * pitch),
                forward(out, channel * table[LD] + (tile_row - first) * across),
            )
            if across >= LANES:
                tiles_in(LANES, (across, table[IN_STEP]), pointers)
            else:
                tiles_in(SHORT, (across, table[IN_STEP]), pointers)


@numba.njit(**SERIAL)
def _products(  # type: ignore[no-untyped-def]
    table, tiles, first, last, runs, columns, weights, zeros, masks, x, y,
):  # fmt: skip
    """Compute runs first..last-1 of each of the sixteen products."""
    vectors = -(-tiles // LANES)
    count = -(-vectors // _WIDEST)
    narrow, wide = divmod(vectors, count)
    clamp = (np.float32(-np.inf), np.float32(np.inf))
    for place in range(PLACES):
        start, stop = place * table[RUNS] + first, place * table[RUNS] + last
        at = np.int64(0)
        for width, panels in ((narrow + 1, wide), (narrow, count - wide)):
            if panels > 0:
                sums = forward(y, place * APART + at)
                # The first column of a place is that of its runs.
                here = forward(x, place * APART + at)
                numbers = (
                    start, stop, panels, width * LANES, table[LD], np.int64(0),
                    table[LD],
                )  # fmt: skip
                # Dense tiles read no table, and without a residual none is read.
                pointers = (
                    address(runs), address(columns), address(masks),
                    address(weights), address(zeros), here, sums, sums, address(masks),
                )  # fmt: skip
                shape = (np.int64(TALLEST), np.int64(DENSE), width)
                group(shape, clamp, numbers, pointers)
                at += panels * width * LANES


@numba.njit(**SERIAL)
def _outputs(  # type: ignore[no-untyped-def]
    table, first, last, top, bottom, bias, sums, line, y, residual, lo, hi, activation,
):  # fmt: skip
    """Make rows first..last-1 of tiles of channels top..bottom-1, and their borders."""
    across, pitch, width = table[ACROSS], table[Y_PITCH], table[WIDTH]
    added = np.int64(residual.size > 0)
    for channel in range(top, bottom):
        plane = channel * table[Y_LD]
        clamp = (bias[channel], lo, hi)
        for tile_row in range(first, last):
            image, row = divmod(tile_row, table[DOWN])
            picture = plane + table[Y_AT] + image * table[Y_IMAGE]
            at = picture + 2 * row * pitch
            rows = min(2, table[HEIGHT] - 2 * row)
            places = (
                at if table[IN_PLACE] else np.int64(-1),
                at + pitch if table[IN_PLACE] and rows == 2 else np.int64(-1),
            )
            lines = forward(line, 0), forward(line, 2 * (across + LANES))
            numbers = (across, table[OUT_STEP], pitch * (rows - 1), added)
            pointers = (
                forward(sums, channel * table[LD] + (tile_row - first) * across),
                lines[0] if places[0] < 0 else forward(address(y), places[0]),
                lines[1] if places[1] < 0 else forward(address(y), places[1]),
                forward(address(residual), at),
            )
            if across >= LANES:
                tiles_out(LANES, clamp, numbers, pointers)
            else:
                tiles_out(SHORT, clamp, numbers, pointers)
            if tile_row == 0:
                y[plane : plane + table[Y_AT]] = np.float32(0)
            for r in range(rows):
                start = at + r * pitch
                if not table[IN_PLACE]:
                    for p in range(width):
                        y[start + p] = lines[r][p]
                if activation != NO_ACTIVATION:
                    _finish(activation, y, start, start + width)
                stop = start + pitch
                if 2 * row + r == table[HEIGHT] - 1:
                    stop = picture + table[Y_IMAGE]
                    if image == table[IMAGES] - 1:
                        stop = plane + table[Y_LD]
                y[start + width : stop] = np.float32(0)


@numba.njit(**SERIAL)
def _winograd(  # type: ignore[no-untyped-def]
    thread, shares, table, runs, columns, weights, zeros, bias, x, y, residual,
    masks, scratch, share, lo, hi, activation,
):  # fmt: skip
    """Take the strips and the runs of one thread through the three stages."""
    first_run, last_run = shares[thread, 2], shares[thread, 3]
    top = np.int64(runs[first_run, ROW])
    bottom = np.int64(runs[last_run - 1, ROW]) + np.int64(runs[last_run - 1, ROWS])
    inputs = forward(address(scratch), thread * share)
    sums = forward(inputs, PLACES * table[IN_STEP])
    line = forward(sums, PLACES * table[OUT_STEP])
    total = table[DOWN] * table[IMAGES]
    for strip in range(shares[thread, 0], shares[thread, 1]):
        first = strip * table[STRIP]
        last = min(total, first + table[STRIP])
        _inputs(table, first, last, x, inputs)
        _products(
            table, (last - first) * table[ACROSS], first_run, last_run, runs, columns,
            weights, zeros, masks, inputs, sums,
        )  # fmt: skip
        _outputs(
            table, first, last, top, bottom, bias, sums, line, y, residual, lo, hi,
            activation,
        )  # fmt: skip


_F, _I, _V = types.float32[::1], types.int64, types.float32
_L, _M = types.int64[::1], types.int64[:, ::1]
_ALL = (
    _M, _L, types.int32[:, ::1], types.uint16[::1], _F, _F, _F, _F, _F, _F,
    types.int32[::1], _F, _I, _V, _V, _I,
)  # fmt: skip

#: What a frame of ``_winograd_call`` holds: what is to be zeroed, then the arguments.
WINOGRAD = (_F, _I, *_ALL)

_read = reader(WINOGRAD)


@numba.njit(**SERIAL)
def _winograd_call(frame):  # type: ignore[no-untyped-def]
    """Compute all strips of a frame, and zero what lies behind the last plane."""
    arguments = _read(frame)
    _winograd(*arguments[1:])
    arguments[0][:] = np.float32(0)


ENTRIES = (Entry(_winograd_call, ((_I,),)),)
