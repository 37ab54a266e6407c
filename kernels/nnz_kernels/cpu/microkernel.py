"""The product of packed weights with shifted planes: the kernel of every convolution.

``Y[row, p] = clamp(bias[row] + R[row, p] + sum_k W[row, k] X[p + table[k]], lo, hi)``,
to which an activation may be applied while it is in the cache,
for a group of panels of pixels and all runs of rows. A *run* is as many rows as a tile
of registers is high; they share their columns. Panels are the inner loop, so that a run
is read from the first-level cache for all but the first panel, and the branch that ends
its short sum is foreseen. A *packed* panel was copied first, all columns one after the
other: its pixels then fill whole cache lines of a few pages, however far apart the
planes are (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication",
2008).

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
from nnz_kernels.cpu._micro import (
    DENSE,
    PACKED,
    PART,
    ROW,
    ROWS,
    SPREAD,
    UNFINISHED,
    copy_panel,
    group,
)
from nnz_kernels.cpu._runtime import FASTMATH, SERIAL
from nnz_kernels.cpu._simd import LANES, WIDTHS

_WIDEST = max(WIDTHS.values())

#: Columns of a task: runs from, to; first float of its panels in x, in y and in the
#: masks; vectors of each panel, number of panels; floats before the span to zero, and
#: the place from which to zero the rest.
RUN_FROM, RUN_TO, X_AT, Y_AT, MASK_AT, VECTORS, PANELS, LEAD, TAIL = range(9)


@numba.njit(**EXACT)
def _finish(kind, y, start, stop):  # type: ignore[no-untyped-def]
    """Apply an activation, under flags of its own."""
    _activate(kind, y, start, stop)


@numba.njit(fastmath=FASTMATH, **SERIAL)
def _product(  # type: ignore[no-untyped-def]
    height, packed, pitch, tasks, first, last, runs, columns, table, weights, bias, x,
    y, ldy, residual, masks, scratch, scratch_at, lo, hi, activation,
):  # fmt: skip
    """Compute the tasks first..last-1; an empty residual means none.

    A pitch that is not 0 says that every column is kept; where panels are not packed it
    is the distance of one column from the next.
    """
    held = np.int64(-1)
    clamp = (lo, hi)
    copies = forward(address(scratch), scratch_at)
    for t in range(first, last):
        x_at, width = np.int64(tasks[t, X_AT]), np.int64(tasks[t, VECTORS])
        panels = np.int64(tasks[t, PANELS])
        source = forward(address(x), x_at)
        size = table.size * width * LANES
        if packed and held != x_at:
            held = x_at
            for p in range(panels):
                here = forward(source, p * width * LANES)
                there = forward(copies, p * size)
                copy_panel(_WIDEST, width, here, address(table), table.size, there)
        start, stop = np.int64(tasks[t, RUN_FROM]), np.int64(tasks[t, RUN_TO])
        way, step = np.int64(SPREAD), width * LANES
        if packed:
            way, step = np.int64(PACKED), size
        if pitch > 0:
            way = np.int64(DENSE)
        numbers = (
            start, stop, panels, step, ldy, np.int64(residual.size > 0),
            width * LANES if packed else pitch,
        )  # fmt: skip
        y_at = np.int64(tasks[t, Y_AT])
        pointers = (
            address(runs), address(columns), address(table), address(weights),
            address(bias), copies if packed else source, forward(address(y), y_at),
            forward(address(residual), y_at),
            forward(address(masks), np.int64(tasks[t, MASK_AT])),
        )  # fmt: skip
        group((height, way, width), clamp, numbers, pointers)
        rows = np.int64(runs[stop - 1, ROW]) + np.int64(runs[stop - 1, ROWS])
        if activation != NO_ACTIVATION and not runs[start, PART] & UNFINISHED:
            for channel in range(np.int64(runs[start, ROW]), rows):
                at = channel * ldy + y_at
                _finish(activation, y, at, at + panels * width * LANES)
        lead, tail = np.int64(tasks[t, LEAD]), np.int64(tasks[t, TAIL])
        if lead > 0 or tail < ldy:
            for channel in range(np.int64(runs[start, ROW]), rows):
                y[channel * ldy : channel * ldy + lead] = np.float32(0)
                y[channel * ldy + tail : (channel + 1) * ldy] = np.float32(0)


_F, _I, _V = types.float32[::1], types.int64, types.float32
_T, _B = types.int32[:, ::1], types.boolean
_TABLES = (_T, types.uint16[::1], types.int32[::1], _F, _F, _F, _F, _I, _F)
_MASKS = (types.int32[::1], _F)

#: What a frame of ``_product_call`` holds: what is to be zeroed, then the arguments.
PRODUCT = (_F, _I, _B, _I, _T, _I, _I, *_TABLES, *_MASKS, _I, _V, _V, _I)

_read = reader(PRODUCT)


@numba.njit(**SERIAL)
def _product_call(frame):  # type: ignore[no-untyped-def]
    """Compute all tasks of a frame, and zero what lies behind the last plane."""
    arguments = _read(frame)
    _product(*arguments[1:])
    arguments[0][:] = np.float32(0)


ENTRIES = (Entry(_product_call, ((_I,),)),)
