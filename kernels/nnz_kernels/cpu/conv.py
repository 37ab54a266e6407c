"""Convolutions on the host: packed weights, bound to grids, run by panels."""

from __future__ import annotations

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
from nnz_kernels.cpu.few_pixels import FewPixels, bind_few, is_few
from nnz_kernels.cpu.microkernel import _product, _product_threads
from nnz_kernels.cpu.pack import Packed, pack
from nnz_kernels.cpu.stage import Source, find_source
from nnz_kernels.cpu.tasks import pixel_masks, plan_tasks
from nnz_kernels.planes import Grid

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

    def bind(self, x: Grid, y: Grid, /) -> CpuBoundConv | FewPixels:
        """Work out offsets, panels and tasks."""
        kernel = (self.shape[2], self.shape[3])
        check_bind(x, y, kernel, self.spec)
        if self.kernel == "dense" and is_few(y, kernel, self.spec):
            return bind_few(self.packed, self.spec, self.shape, x, y)
        channels = self.shape[1] * self.spec.groups
        source = find_source(x, y, kernel, self.spec, channels)
        return CpuBoundConv(
            self,
            x,
            y,
            source,
            source.offsets(self.packed.columns),
            plan_tasks(self.packed, source, y, self.kernel == "depthwise"),
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
