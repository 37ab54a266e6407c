"""Depthwise convolutions: one plane of input for each plane of output, row by row.

All of the jitted code is in this file: numba's cache does not see changes elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numba import types

from nnz_kernels.api.conv import BoundConv, ConvSpec, check_buffers
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._emit import address, forward
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._frame import reader
from nnz_kernels.cpu._math import EXACT, NO_ACTIVATION, _activate, activation_kind
from nnz_kernels.cpu._planes import HALF, SHORTEST, depthwise_plane
from nnz_kernels.cpu._runtime import SERIAL, readable, thread_count
from nnz_kernels.cpu._simd import LANES
from nnz_kernels.cpu.stage import border_holds_padding, reads_in_place
from nnz_kernels.cpu.tasks import extent, pixel_masks
from nnz_kernels.cpu.together import shares, together
from nnz_kernels.planes import Grid

_NOTHING = np.empty(0, np.float32)

#: Columns of the table of the two grids: of each floats from channel to channel, to the
#: first pixel (for x: to its first tap), from image to image, from row to row; then
#: images, rows and pixels of a row; floats after the last row to zero; and outputs of
#: one input channel.
(
    X_LD, X_AT, X_IMAGE, X_PITCH, Y_LD, Y_AT, Y_IMAGE, Y_PITCH, IMAGES, ROWS, WIDTH,
    MULTIPLE,
) = range(12)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BoundDepthwise(BoundConv[HostArray]):
    """A depthwise convolution of two grids, read in place."""

    weights: HostArray
    bias: HostArray
    spec: ConvSpec
    x: Grid
    y: Grid
    table: HostArray
    taps: HostArray
    masks: HostArray
    flat: bool
    square: bool
    threads: int
    scratch: int = 0

    def attach(
        self,
        x: HostArray,
        y: HostArray,
        residual: HostArray | None,
        scratch: HostArray,
        /,
    ) -> Callable[[], None]:
        """Return a call that computes all channels."""
        channels, threads = self.bias.size, self.threads
        inputs = channels // int(self.table[MULTIPLE])
        buffers = (x, y, residual, scratch)
        check_buffers((self.x, self.y), (inputs, channels), self.scratch, buffers)
        added = _NOTHING if residual is None else readable(residual)
        # The last vector of a row takes in pixels of the one before: what is added must
        # still be there.
        shared = residual is not None and np.may_share_memory(added, y)
        kept = added.copy() if shared else added
        arguments = (
            0 if self.flat else self.spec.strides[0], self.square, self.weights,
            self.taps, self.bias, readable(x), y, kept, self.masks, self.table,
            np.float32(self.spec.clamp[0]), np.float32(self.spec.clamp[1]),
            activation_kind(self.spec.activation),
        )  # fmt: skip

        parts = [(*share, *arguments) for share in shares(channels, threads)]
        convolve = together(_depthwise_call, _ONE, parts)
        if not shared:
            return convolve

        def run() -> None:
            np.copyto(kept, added)
            convolve()

        return run


def is_direct(x: Grid, y: Grid, kernel: tuple[int, int], spec: ConvSpec) -> bool:
    """Return whether the kernel can read these planes in place."""
    return (
        spec.strides in ((1, 1), (2, 2))
        and (y.w >= SHORTEST or reads_in_place(x, y, kernel, spec))
        and border_holds_padding(x, y, kernel, spec)
    )


def bind_depthwise(
    weights: HostArray,
    bias: HostArray,
    spec: ConvSpec,
    grids: tuple[Grid, Grid],
    threads: int,
) -> BoundDepthwise:
    """Work out places.

    Args:
        weights: ``(oc, 1, kh, kw)``.
        bias: ``(oc,)``.
        spec: As ``is_direct`` wants it.
        grids: Of x and y.
        threads: Threads to share the channels out over.
    """
    x, y = grids
    outputs, _, kh, kw = weights.shape
    first = x.lead - spec.pads[0] * x.pitch - spec.pads[1]
    flat = reads_in_place(x, y, (kh, kw), spec)
    rows = (1, 1, extent(y) * LANES) if flat else (y.n, y.h, y.w)
    table = (
        x.ld, first, x.rows * x.pitch, x.pitch, y.ld, y.lead, y.rows * y.pitch, y.pitch,
        *rows, outputs // spec.groups,
    )  # fmt: skip
    lines = np.arange(kh)[:, None] * spec.dilations[0] * x.pitch
    taps = (lines + np.arange(kw) * spec.dilations[1]).reshape(-1)
    return BoundDepthwise(
        weights.reshape(-1),
        bias,
        spec,
        x,
        y,
        np.array(table, np.int64),
        taps.astype(np.int32),
        pixel_masks(y),
        flat,
        (kh, kw) == (3, 3) and spec.dilations == (1, 1),
        min(thread_count(threads, weights.size * y.pixels), outputs),
    )


@numba.njit(**EXACT)
def _finish(kind, y, start, stop):  # type: ignore[no-untyped-def]
    """Apply an activation, under flags of its own."""
    _activate(kind, y, start, stop)


@numba.njit(**SERIAL)
def _depthwise(  # type: ignore[no-untyped-def]
    first, last, stride, square, weights, taps, bias, x, y, residual, masks, table, lo,
    hi, activation,
):  # fmt: skip
    """Convolve the output channels first..last-1, zeros around their pixels."""
    height, width, pitch = table[ROWS], table[WIDTH], table[Y_PITCH]
    numbers = (
        table[X_PITCH], pitch, height, width, taps.size, np.int64(residual.size > 0),
    )  # fmt: skip
    lanes = LANES
    if stride > 0 and width < LANES:
        lanes = HALF if width >= HALF else SHORTEST
    # The shortest vectors know no kernel by heart.
    known = square and lanes in (LANES, HALF)
    kind = (np.int64(lanes), stride, np.int64(known))
    for c in range(first, last):
        clamp = (bias[c], lo, hi)
        start = c * table[Y_LD]
        done = start
        for image in range(table[IMAGES]):
            source = c // table[MULTIPLE] * table[X_LD] + table[X_AT]
            to = start + table[Y_AT] + image * table[Y_IMAGE]
            y[done:to] = np.float32(0)
            pointers = (
                forward(address(x), source + image * table[X_IMAGE]),
                forward(address(y), to), forward(address(residual), to),
                forward(address(weights), c * taps.size), address(taps), address(masks),
            )  # fmt: skip
            depthwise_plane(kind, clamp, numbers, pointers)
            for row in range(height - 1):
                end = to + row * pitch + width
                for p in range(end, end + pitch - width):
                    y[p] = np.float32(0)
            done = to + (height - 1) * pitch + width
        y[done : start + table[Y_LD]] = np.float32(0)
        if activation != NO_ACTIVATION:
            _finish(activation, y, start + table[Y_AT], done)
    if last == bias.size:
        y[last * table[Y_LD] :] = np.float32(0)


_F, _I, _V = types.float32[::1], types.int64, types.float32
_ALL = (
    _I, types.boolean, _F, types.int32[::1], _F, _F, _F, _F, types.int32[::1],
    types.int64[::1], _V, _V, _I,
)  # fmt: skip

_ONE = (_I, _I, *_ALL)

_read = reader(_ONE)


@numba.njit(**SERIAL)
def _depthwise_call(frame):  # type: ignore[no-untyped-def]
    """Convolve the channels of a frame."""
    _depthwise(*_read(frame))


ENTRIES = (Entry(_depthwise_call, ((_I,),)),)
