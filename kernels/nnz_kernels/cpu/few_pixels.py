"""Products with few pixels, such as a fully connected layer at batch 1.

A vector of pixels would be nearly empty there, so vectors run over the rows of a run:
every kept block is one load of its weights, one broadcast pixel and one multiply-add.
The packed weights are those of ``microkernel``. They are read once, for all pixels. A
sum starts from bias plus residual there too, so that it has the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numba import types

from nnz_kernels.api.conv import BoundConv, ConvSpec, check_buffers
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._emit import address, forward
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._frame import reader, sealed
from nnz_kernels.cpu._math import EXACT, _activate, activation_kind
from nnz_kernels.cpu._micro import (
    BASE,
    CHAINS,
    CONTINUED,
    COUNT,
    PART,
    ROW,
    ROWS,
    TAP,
    WEIGHT,
    column_sums,
)
from nnz_kernels.cpu._runtime import PARALLEL, SERIAL, readable, thread_count
from nnz_kernels.cpu.pack import Packed
from nnz_kernels.cpu.tasks import cut_runs
from nnz_kernels.planes import LINE, Grid, round_up

_NOTHING = np.empty(0, np.float32)

#: Pixels up to which a vector of rows beats a vector of pixels.
FEW = 4


def is_few(y: Grid, kernel: tuple[int, int], spec: ConvSpec) -> bool:
    """Return whether a 1x1 convolution is better off with vectors of rows."""
    plain = kernel == (1, 1) and spec.strides == (1, 1) and not any(spec.pads)
    return plain and spec.groups == 1 and y.pixels <= FEW


@dataclass(frozen=True, slots=True)
class FewPixels(BoundConv[HostArray]):
    """A 1x1 convolution of few pixels, bound to grids."""

    packed: Packed
    spec: ConvSpec
    shape: tuple[int, ...]
    x: Grid
    y: Grid
    bounds: HostArray

    @property
    def scratch(self) -> int:
        """Floats for the pixels one after the other, and for their sums."""
        return self.y.pixels * (round_up(self.shape[1], LINE) + self._width)

    @property
    def _width(self) -> int:
        # Runs write whole tiles: rows beyond the last need a place.
        return round_up(self.shape[0] + self.packed.height, LINE)

    def attach(
        self,
        x: HostArray,
        y: HostArray,
        residual: HostArray | None,
        scratch: HostArray,
        /,
    ) -> Callable[[], None]:
        """Return a call that collects the pixels, multiplies and spreads the sums."""
        outputs, inputs = self.shape[:2]
        buffers = (x, y, residual, scratch)
        check_buffers((self.x, self.y), (inputs, outputs), self.scratch, buffers)
        packed, count = self.packed, self.y.pixels
        length = round_up(inputs, LINE)
        edge = count * length
        pixels, sums = scratch[:edge], scratch[edge : self.scratch]
        added = _NOTHING if residual is None else readable(residual)
        places = _places(self.y)
        collect = (readable(x), _places(self.x), self.x.ld, inputs, length, pixels)
        multiply = (
            packed.height, packed.runs, packed.columns, packed.weights, packed.bias,
            pixels, length, count, sums, self._width, added, self.y.ld, places,
        )  # fmt: skip
        spread = (
            sums, self._width, np.float32(self.spec.clamp[0]),
            np.float32(self.spec.clamp[1]),
            activation_kind(self.spec.activation), y, self.y.ld, places, outputs,
        )  # fmt: skip
        bounds = self.bounds
        if len(bounds) == 2:
            alone = (*collect, 0, len(packed.runs), *multiply, *spread)
            return sealed(_few_call, _ALONE, *alone)

        def run() -> None:
            _collect(*collect)
            _sums_threads(bounds, *multiply)
            _spread(*spread)

        return run


def bind_few(
    packed: Packed,
    spec: ConvSpec,
    shape: tuple[int, ...],
    grids: tuple[Grid, Grid],
    threads: int,
) -> FewPixels:
    """Share the runs out over threads, where no sum is cut into parts."""
    x, y = grids
    whole = packed.chunks == 1
    threads = thread_count(threads, packed.nnz * y.pixels) if whole else 1
    cuts = cut_runs(packed, threads)
    bounds = np.array([0, *(stop for _, stop in cuts)], np.int64)
    bounds[-1] = len(packed.runs)
    return FewPixels(packed, spec, shape, x, y, bounds)


@functools.lru_cache(maxsize=64)
def _places(grid: Grid) -> HostArray:
    """Return where each pixel lies in its channel's row."""
    return np.array(
        [grid.offset(*place) for place in np.ndindex(grid.n, grid.h, grid.w)], np.int64
    )


@numba.njit(**SERIAL)
def _collect(x, places, ld, channels, length, out):  # type: ignore[no-untyped-def]
    """Write ``out[i * length + c]``, the channels of each pixel side by side."""
    for i in range(places.size):
        for c in range(channels):
            out[i * length + c] = x[c * ld + places[i]]


@numba.njit(inline="always", **SERIAL)
def _place(runs, r, start):  # type: ignore[no-untyped-def]
    """Return where a run has its columns, its weights and its sums."""
    row = start + np.int64(runs[r, ROW])
    return np.int64(runs[r, TAP]), np.int64(runs[r, WEIGHT]), row


@numba.njit(inline="always", **SERIAL)
def _taps(runs, r):  # type: ignore[no-untyped-def]
    """Return how many columns a run has."""
    return np.int64(runs[r, COUNT])


@numba.njit(**SERIAL)
def _sums(  # type: ignore[no-untyped-def]
    first, last, height, runs, columns, weights, bias, pixels, length, count, sums,
    width, residual, ld, places,
):  # fmt: skip
    """Write ``sums[i * width + row]`` of the runs first..last-1."""
    r = first
    while r < last:
        step = 1
        # Side by side may go what starts from the same column.
        if r + CHAINS <= last and runs[r, BASE] == runs[r + CHAINS - 1, BASE]:
            step = CHAINS
        for i in range(count):
            start = i * width
            for run in range(r, r + step):
                if not runs[run, PART] & CONTINUED:
                    at = np.int64(runs[run, ROW])
                    for row in range(height):
                        sums[start + at + row] = bias[run * height + row]
                    if residual.size:
                        for row in range(at, at + runs[run, ROWS]):
                            sums[start + row] += residual[row * ld + places[i]]
            here = forward(address(pixels), i * length + np.int64(runs[r, BASE]))
            pointers = (address(columns), address(weights), here, address(sums))
            if step == CHAINS:
                chains = (
                    _place(runs, r, start), _place(runs, r + 1, start),
                    _place(runs, r + 2, start), _place(runs, r + 3, start),
                )  # fmt: skip
                taps = (
                    _taps(runs, r), _taps(runs, r + 1), _taps(runs, r + 2),
                    _taps(runs, r + 3),
                )  # fmt: skip
                column_sums(height, taps, chains, pointers)
            else:
                place, tap = (_place(runs, r, start),), (_taps(runs, r),)
                column_sums(height, tap, place, pointers)
        r += step


@numba.njit(**PARALLEL)
def _sums_threads(  # type: ignore[no-untyped-def]
    bounds, height, runs, columns, weights, bias, pixels, length, count, sums, width,
    residual, ld, places,
):  # fmt: skip
    """Give each thread the runs between two bounds."""
    for c in numba.prange(bounds.size - 1):
        _sums(
            bounds[c], bounds[c + 1], height, runs, columns, weights, bias, pixels,
            length, count, sums, width, residual, ld, places,
        )  # fmt: skip


@numba.njit(**EXACT)
def _finish(kind, y, start, stop):  # type: ignore[no-untyped-def]
    """Apply an activation, under flags of its own."""
    _activate(kind, y, start, stop)


@numba.njit(**SERIAL)
def _spread(  # type: ignore[no-untyped-def]
    sums, width, lo, hi, activation, y, ld, places, channels
):  # fmt: skip
    """Finish sums ``[pixel, channel]`` and write them as planes, zeros around them."""
    for i in range(places.size):
        for at in range(i * width, i * width + channels):
            value = sums[at]
            value = lo if value < lo else value
            sums[at] = hi if value > hi else value
        _finish(activation, sums, i * width, i * width + channels)
    for c in range(channels):
        after = 0
        for i in range(places.size):
            at = c * ld + places[i]
            for p in range(c * ld + after, at):
                y[p] = np.float32(0)
            y[at] = sums[i * width + c]
            after = places[i] + 1
        for p in range(c * ld + after, (c + 1) * ld):
            y[p] = np.float32(0)
    for p in range(channels * ld, y.size):
        y[p] = np.float32(0)


_F, _I, _T, _V = types.float32[::1], types.int64, types.int64[::1], types.float32
_SUMS = (
    types.int32[:, ::1], types.uint16[::1], _F, _F, _F, _I, _I, _F, _I, _F, _I, _T,
)  # fmt: skip

_COLLECT = (_F, _T, _I, _I, _I, _F)
_SPREAD = (_F, _I, _V, _V, _I, _F, _I, _T, _I)
_ALONE = (*_COLLECT, _I, _I, _I, *_SUMS, *_SPREAD)
_SECOND, _THIRD = len(_COLLECT), len(_ALONE) - len(_SPREAD)

_read = reader(_ALONE)


@numba.njit(**SERIAL)
def _few_call(frame):  # type: ignore[no-untyped-def]
    """Collect, multiply and spread what a frame holds."""
    arguments = _read(frame)
    _collect(*arguments[:_SECOND])
    _sums(*arguments[_SECOND:_THIRD])
    _spread(*arguments[_THIRD:])


ENTRIES = (
    Entry(_few_call, ((_I,),)),
    Entry(_collect, (_COLLECT,)),
    Entry(_sums_threads, ((_T, _I, *_SUMS),)),
    Entry(_spread, (_SPREAD,)),
)
