"""Convolutions on the host: packed weights, bound to grids, run by panels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from nnz_kernels.api.conv import (
    ConvSpec,
    check_bind,
    check_buffer,
    check_weights,
    is_depthwise,
)
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._runtime import readable, thread_count
from nnz_kernels.cpu._simd import LANES, WIDTHS
from nnz_kernels.cpu.pack import Packed, cut, pack
from nnz_kernels.cpu.panels import _product, _product_threads
from nnz_kernels.cpu.stage import Source, find_source
from nnz_kernels.planes import Grid

#: Packed weights that stay in the second-level cache while panels pass by.
_RESIDENT = 128 * 1024

#: Packed weights of the smallest piece of work, in floats.
_PIECE = 8 * 1024

_NOTHING = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class CpuConv:
    """Packed weights of one layer."""

    packed: Packed
    spec: ConvSpec
    shape: tuple[int, ...]
    kernel: str
    block: int | None

    @property
    def nnz(self) -> int:
        """Weights that are multiplied."""
        return self.packed.nnz

    @property
    def nbytes(self) -> int:
        """Bytes held for weights and indices."""
        return self.packed.nbytes

    @property
    def density(self) -> float:
        """Share of the weights that is multiplied."""
        return self.nnz / int(np.prod(self.shape))

    def bind(self, x: Grid, y: Grid, /) -> CpuBoundConv:
        """Work out offsets, panels and tasks."""
        kernel = (self.shape[2], self.shape[3])
        check_bind(x, y, kernel, self.spec)
        channels = self.shape[1] * self.spec.groups
        source = find_source(x, y, kernel, self.spec, channels)
        return CpuBoundConv(
            self,
            x,
            y,
            source,
            source.offsets(self.packed.columns),
            _tasks(self.packed, source, y, self.kernel == "depthwise"),
            pixel_masks(y),
        )


@dataclass(frozen=True, slots=True)
class CpuBoundConv:
    """A convolution of two grids."""

    conv: CpuConv
    x: Grid
    y: Grid
    source: Source
    offsets: HostArray
    tasks: HostArray
    masks: HostArray

    @property
    def scratch(self) -> int:
        """Floats of scratch that a run needs."""
        return 0 if self.source.stage is None else self.source.stage.floats

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
        """Stage if need be, then run the tasks."""
        self._check(x, y, residual, scratch)
        packed, spec, tasks = self.conv.packed, self.conv.spec, self.tasks
        work = packed.nnz * self.y.pixels
        threads = min(thread_count(threads, work), len(tasks))
        x = readable(x)
        if self.source.stage is not None:
            self.source.stage.run(x, scratch, threads)
            x = scratch
        arguments = (
            packed.table, self.offsets, packed.weights, packed.bias, x, y, self.y.ld,
            _NOTHING if residual is None else readable(residual), self.masks,
            np.float32(spec.clamp[0]), np.float32(spec.clamp[1]),
        )  # fmt: skip
        if threads == 1:
            _product(packed.height, tasks, 0, len(tasks), *arguments)
        else:
            _product_threads(threads, packed.height, tasks, *arguments)
        y[self.conv.shape[0] * self.y.ld :] = 0

    def _check(
        self,
        x: HostArray,
        y: HostArray,
        residual: HostArray | None,
        scratch: HostArray,
    ) -> None:
        outputs, a_group = self.conv.shape[:2]
        check_buffer("x", x, self.x.size(a_group * self.conv.spec.groups))
        check_buffer("y", y, self.y.size(outputs))
        check_buffer("scratch", scratch, self.scratch)
        if residual is not None:
            check_buffer("residual", residual, self.y.size(outputs))


def prepare_conv(
    weights: HostArray,
    bias: HostArray | None,
    spec: ConvSpec,
    /,
    *,
    block: int | None,
) -> CpuConv:
    check_weights(weights, bias, spec, block)
    kernel = "dense" if block is None else f"spmm_b{block}"
    packed_block = block
    if is_depthwise(weights, spec):
        kernel, block, packed_block = "depthwise", None, None
    packed = pack(weights, bias, spec, packed_block)
    return CpuConv(packed, spec, weights.shape, kernel, block)


def extent(y: Grid) -> int:
    """Return the vectors from the first pixel to the last."""
    return -(-(((y.n - 1) * y.rows + y.h - 1) * y.pitch + y.w) // LANES)


def pixel_masks(y: Grid) -> HostArray:
    """Return for each vector of the span which lanes are pixels, as bits."""
    flat = np.zeros(extent(y) * LANES, np.bool_)
    for image in range(y.n):
        for row in range(y.h):
            start = (image * y.rows + row) * y.pitch
            flat[start : start + y.w] = True
    bits = flat.reshape(-1, LANES) @ (1 << np.arange(LANES))
    return bits.astype(np.uint16)


def _panels(y: Grid, widest: int) -> list[tuple[int, int]]:
    """Return first vector and vectors of panels, as even as can be."""
    total = extent(y)
    count = -(-total // widest)
    edges = [total * panel // count for panel in range(count + 1)]
    return [(a, b - a) for a, b in itertools.pairwise(edges)]


def _tasks(packed: Packed, source: Source, y: Grid, depthwise: bool) -> HostArray:
    """Return the work as rows of the columns that ``panels`` names.

    Weights that fit the cache pass by each panel of pixels in turn; of larger ones a
    piece is held while all panels pass by.
    """
    panels = _panels(y, WIDTHS[packed.height])
    if depthwise:
        pieces = [(run, run + 1) for run in range(len(packed.table))]
        order = [(piece, panel) for piece in pieces for panel in panels]
    elif packed.weights.size <= _RESIDENT:
        pieces = cut(packed, _PIECE)
        order = [(piece, panel) for panel in panels for piece in pieces]
    else:
        pieces = cut(packed, _RESIDENT)
        order = [(piece, panel) for piece in pieces for panel in panels]
    end = (panels[-1][0] + panels[-1][1]) * LANES
    tasks = [
        (
            *piece, source.start + at * LANES, y.lead + at * LANES, vectors, at,
            y.lead if at == 0 else 0,
            y.lead + end if (at + vectors) * LANES == end else y.ld,
        )
        for piece, (at, vectors) in order
    ]  # fmt: skip
    return np.array(tasks, np.int64)
