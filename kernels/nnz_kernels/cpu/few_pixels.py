"""Dense products with few pixels, such as a fully connected layer at batch 1.

A vector of pixels would be nearly empty there, so the operands change places: vectors
run over output channels, the transposed weights are read as planes, and the pixels take
the place of the weights' rows. The micro-kernel of ``microkernel`` is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numba import types

from nnz_kernels.api.conv import ConvSpec, check_buffer
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import SERIAL, readable, thread_count
from nnz_kernels.cpu._simd import LANES, TALLEST, WIDTHS
from nnz_kernels.cpu.microkernel import _product, _product_threads
from nnz_kernels.cpu.pack import Packed
from nnz_kernels.cpu.tasks import panels
from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import LINE, Grid, round_up

_NOTHING = np.empty(0, np.float32)


def is_few(y: Grid, kernel: tuple[int, int], spec: ConvSpec) -> bool:
    """Return whether a dense 1x1 convolution is better off with places changed."""
    plain = kernel == (1, 1) and spec.strides == (1, 1) and not any(spec.pads)
    return plain and spec.groups == 1 and y.pixels <= min(TALLEST, LANES // 2)


@dataclass(frozen=True, slots=True)
class FewPixels:
    """A dense 1x1 convolution of few pixels, bound to grids."""

    packed: Packed
    spec: ConvSpec
    shape: tuple[int, ...]
    x: Grid
    y: Grid
    height: int
    width: int
    offsets: HostArray
    tasks: HostArray
    masks: HostArray

    @property
    def scratch(self) -> int:
        """Floats for the pixels, tap by tap, and for the sums, pixel by pixel."""
        return round_up(self.shape[1] * self.height, LINE) + self.height * self.width

    def run(
        self,
        x: HostArray,
        y: HostArray,
        residual: HostArray | None,
        scratch: HostArray,
        /,
        *,
        threads: int,
    ) -> None:
        """Collect the pixels, multiply, and spread the sums over planes."""
        outputs, inputs = self.shape[:2]
        check_buffer("x", x, self.x.size(inputs))
        check_buffer("y", y, self.y.size(outputs))
        check_buffer("scratch", scratch, self.scratch)
        if residual is not None:
            check_buffer("residual", residual, self.y.size(outputs))
        edge = round_up(inputs * self.height, LINE)
        pixels, sums = scratch[:edge], scratch[edge : self.scratch]
        _collect(readable(x), _places(self.x), self.x.ld, inputs, self.height, pixels)
        run = np.array([(0, self.y.pixels, 0, inputs, 0)], np.int64)
        arguments = (
            run, self.offsets, pixels, np.zeros(self.height, np.float32),
            self.packed.transposed(self.shape), sums, self.width, _NOTHING, self.masks,
            np.float32(-np.inf), np.float32(np.inf),
        )  # fmt: skip
        work = outputs * inputs * self.y.pixels
        chunks = min(thread_count(threads, work), len(self.tasks))
        if chunks == 1:
            _product(self.height, self.tasks, 0, len(self.tasks), *arguments)
        else:
            _product_threads(chunks, self.height, self.tasks, *arguments)
        self._spread(sums, y, residual)

    def _spread(
        self, sums: HostArray, y: HostArray, residual: HostArray | None
    ) -> None:
        outputs = self.shape[0]
        bias = self.packed.biases(outputs)
        added = _NOTHING if residual is None else readable(residual)
        lo, hi = (np.float32(bound) for bound in self.spec.clamp)
        places = _places(self.y)
        _spread(sums, self.width, bias, added, lo, hi, y, self.y.ld, places, outputs)
        y[outputs * self.y.ld :] = 0


def bind_few(
    packed: Packed, spec: ConvSpec, shape: tuple[int, ...], x: Grid, y: Grid
) -> FewPixels:
    """Work out panels over the output channels."""
    outputs, inputs = shape[:2]
    width = round_up(outputs, LINE)
    if inputs * width >= 2**31:
        raise ShapeError(f"weights of {outputs}x{inputs} pass int32 offsets")
    height = 1 << (y.pixels - 1).bit_length()
    tasks = [
        (0, 1, at * LANES, at * LANES, vectors, at, 0, width)
        for at, vectors in panels(width // LANES, WIDTHS[height])
    ]
    return FewPixels(
        packed,
        spec,
        shape,
        x,
        y,
        height,
        width,
        offsets=(np.arange(inputs) * width).astype(np.int32),
        tasks=np.array(tasks, np.int64),
        masks=np.full(width // LANES, (1 << LANES) - 1, np.uint16),
    )


def _places(grid: Grid) -> HostArray:
    """Return where each pixel lies in its channel's row."""
    return np.array(
        [grid.offset(*place) for place in np.ndindex(grid.n, grid.h, grid.w)], np.int64
    )


@numba.njit(**SERIAL)
def _collect(x, places, ld, channels, height, out):  # type: ignore[no-untyped-def]
    """Write ``out[c, i]``, the pixels of each channel side by side."""
    for c in range(channels):
        for i in range(places.size):
            out[c * height + i] = x[c * ld + places[i]]
        for i in range(places.size, height):
            out[c * height + i] = np.float32(0)


@numba.njit(**SERIAL)
def _spread(  # type: ignore[no-untyped-def]
    sums, width, bias, residual, lo, hi, y, ld, places, channels
):  # fmt: skip
    """Finish sums ``[pixel, channel]`` and write them as planes, zeros around them."""
    for c in range(channels):
        after = 0  # zeros up to each pixel: a residual may be y itself
        for i in range(places.size):
            at = c * ld + places[i]
            value = sums[i * width + c] + bias[c]
            if residual.size:
                value += residual[at]
            value = lo if value < lo else value
            value = hi if value > hi else value
            for p in range(c * ld + after, at):
                y[p] = np.float32(0)
            y[at] = value
            after = places[i] + 1
        for p in range(c * ld + after, (c + 1) * ld):
            y[p] = np.float32(0)


_F, _I, _T, _V = types.float32[::1], types.int64, types.int64[::1], types.float32

ENTRIES = (
    Entry(_collect, ((_F, _T, _I, _I, _I, _F),)),
    Entry(_spread, ((_F, _I, _F, _F, _V, _V, _F, _I, _T, _I),)),
)
