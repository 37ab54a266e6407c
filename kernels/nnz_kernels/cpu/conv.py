"""Convolutions on the host: packed weights, bound to grids, run by panels."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnz_kernels.api.conv import (
    BoundConv,
    ConvSpec,
    Tiling,
    check_bind,
    check_buffers,
    check_weights,
    is_depthwise,
)
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._math import activation_kind
from nnz_kernels.cpu._runtime import cpu_name, readable, thread_count
from nnz_kernels.cpu._simd import LANES, TALLEST
from nnz_kernels.cpu.depthwise import BoundDepthwise, bind_depthwise, is_direct
from nnz_kernels.cpu.few_pixels import FEW, FewPixels, bind_few, is_few
from nnz_kernels.cpu.microkernel import PRODUCT, _product_call
from nnz_kernels.cpu.pack import REACH, Packed, pack
from nnz_kernels.cpu.stage import Source, find_source
from nnz_kernels.cpu.tasks import Tasks, chunk_columns, pixel_masks, plan_tasks
from nnz_kernels.cpu.together import together
from nnz_kernels.cpu.winograd import (
    LEAST_PIXELS,
    Winograd,
    is_winograd,
    prepare_winograd,
)
from nnz_kernels.planes import LINE, Grid, round_up

_NOTHING = np.empty(0, np.float32)

#: Columns below which a copy of a panel cannot pay for itself.
_FEW_COLUMNS = 16


@dataclass(frozen=True, slots=True)
class CpuConv:
    """Packed weights of one layer."""

    packed: Packed
    spec: ConvSpec
    shape: tuple[int, ...]
    kernel: str
    block: int | None
    tiling: Tiling

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

    def retiled(self, tiling: Tiling, /) -> CpuConv | None:
        """Share the packed weights; chunks are packed otherwise."""
        if "chunk" in (tiling, self.tiling) or tiling == "winograd":
            return None
        kernel = _name(self.block, tiling)
        return dataclasses.replace(self, tiling=tiling, kernel=kernel)

    def bind(
        self, x: Grid, y: Grid, /, *, threads: int = 1
    ) -> CpuBoundConv | FewPixels:
        """Work out offsets, panels and tasks."""
        kernel = (self.shape[2], self.shape[3])
        check_bind(x, y, kernel, self.spec)
        if is_few(y, kernel, self.spec):
            return bind_few(self.packed, self.spec, self.shape, (x, y), threads)
        channels = self.shape[1] * self.spec.groups
        source = find_source(x, y, kernel, self.spec, channels)
        threads = thread_count(threads, self.nnz * y.pixels)
        columns = channels * kernel[0] * kernel[1]
        named = columns if self.tiling != "direct" else columns // self.spec.groups
        tasks = plan_tasks(self.packed, source.start, y, named, self.tiling, threads)
        return CpuBoundConv(
            self,
            x,
            y,
            source,
            source.offsets(np.arange(columns)),
            tasks,
            pixel_masks(y),
        )


@dataclass(frozen=True, slots=True)
class CpuDepthwise:
    """Weights of a depthwise layer, and packed ones for grids that need staging."""

    weights: HostArray
    bias: HostArray
    spec: ConvSpec
    kernel: str = "depthwise"
    block: int | None = None
    density: float = 1.0

    @property
    def nnz(self) -> int:
        """Weights that are multiplied: all of them."""
        return self.weights.size

    @property
    def nbytes(self) -> int:
        """Bytes of weights and bias."""
        return self.weights.nbytes + self.bias.nbytes

    def retiled(self, tiling: Tiling, /) -> CpuDepthwise:
        """Return itself: there is one way."""
        return self

    def bind(
        self, x: Grid, y: Grid, /, *, threads: int = 1
    ) -> BoundDepthwise | CpuBoundConv | FewPixels:
        """Read the planes in place, or pack and stage as for any other layer."""
        kernel = (self.weights.shape[2], self.weights.shape[3])
        check_bind(x, y, kernel, self.spec)
        if is_direct(x, y, kernel, self.spec):
            grids = (x, y)
            return bind_depthwise(self.weights, self.bias, self.spec, grids, threads)
        packed = pack(self.weights, self.bias, self.spec, None)
        conv = CpuConv(
            packed, self.spec, self.weights.shape, self.kernel, None, "direct"
        )
        return conv.bind(x, y, threads=threads)


@dataclass(frozen=True, slots=True)
class CpuBoundConv(BoundConv[HostArray]):
    """A convolution of two grids."""

    conv: CpuConv
    x: Grid
    y: Grid
    source: Source
    table: HostArray
    tasks: Tasks
    masks: HostArray

    @property
    def scratch(self) -> int:
        """Floats of scratch: staged planes, then packed panels of each thread."""
        return self._staged + self._threads * self.tasks.share

    @property
    def _staged(self) -> int:
        stage = self.source.stage
        return 0 if stage is None else round_up(stage.floats, LINE)

    @property
    def _pitch(self) -> int:
        """Floats from one column to the next where all are kept, else 0."""
        if self.conv.block is not None or self.conv.packed.height != TALLEST:
            return 0
        alone = self.source.taps.size == 1 and not self.source.taps.any()
        return self.source.channel if alone or self.conv.tiling != "direct" else 0

    @property
    def _threads(self) -> int:
        return len(self.tasks.bounds) - 1

    def attach(
        self,
        x: HostArray,
        y: HostArray,
        residual: HostArray | None,
        scratch: HostArray,
        /,
    ) -> Callable[[], None]:
        """Return a call that stages if need be, then runs the tasks."""
        self._check(x, y, residual, scratch)
        packed, spec, tasks = self.conv.packed, self.conv.spec, self.tasks
        stage, threads = self.source.stage, self._threads
        planes, panels = scratch[: self._staged], scratch[self._staged :]
        source = readable(x) if stage is None else planes
        head = (packed.height, self.conv.tiling != "direct", self._pitch, tasks.tasks)
        middle = (
            packed.runs, packed.columns, self.table, packed.weights, packed.bias,
            source, y, self.y.ld, _NOTHING if residual is None else readable(residual),
            self.masks, panels,
        )  # fmt: skip
        ends = (
            np.float32(spec.clamp[0]), np.float32(spec.clamp[1]),
            activation_kind(spec.activation),
        )  # fmt: skip
        behind = y[self.conv.shape[0] * self.y.ld :]
        copy = None if stage is None else stage.attach(readable(x), planes, threads)
        parts = [
            (_NOTHING if c else behind, *head, *share, *middle, c * tasks.share, *ends)
            for c, share in enumerate(itertools.pairwise(tasks.bounds))
        ]
        multiply = together(_product_call, PRODUCT, parts)
        return multiply if copy is None else _both(copy, multiply)

    def _check(
        self,
        x: HostArray,
        y: HostArray,
        residual: HostArray | None,
        scratch: HostArray,
    ) -> None:
        outputs, a_group = self.conv.shape[:2]
        channels = (a_group * self.conv.spec.groups, outputs)
        buffers = (x, y, residual, scratch)
        check_buffers((self.x, self.y), channels, self.scratch, buffers)


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        first()
        second()

    return run


def _name(block: int | None, tiling: Tiling) -> str:
    kernel = "dense" if block is None else f"spmm_b{block}"
    return kernel if tiling == "direct" else f"{kernel}_{tiling}"


@functools.cache
def identity() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return f"{cpu_name()}-{32 * LANES}-{digest.hexdigest()[:12]}"


def tilings(
    shape: tuple[int, ...], spec: ConvSpec, block: int | None, pixels: int, /
) -> tuple[Tiling, ...]:
    columns = math.prod(shape[1:])
    few = pixels <= FEW and shape[2:] == (1, 1)
    if few or shape[1] == 1 or columns < _FEW_COLUMNS:
        return ("direct",)
    if pixels >= LEAST_PIXELS and is_winograd(shape, spec, block):
        return ("panel", "direct", "winograd")
    if columns <= chunk_columns(block) or (block or TALLEST) > 2:
        return ("panel", "direct")
    return ("panel", "narrow", "chunk", "direct")


def prepare_conv(
    weights: HostArray,
    bias: HostArray | None,
    spec: ConvSpec,
    /,
    *,
    block: int | None,
    tiling: Tiling = "direct",
) -> CpuConv | CpuDepthwise | Winograd:
    check_weights(weights, bias, spec, block)
    if tiling == "winograd":
        if is_winograd(weights.shape, spec, block) and np.isfinite(weights).all():
            return prepare_winograd(weights, bias, spec)
        tiling = "direct"
    if is_depthwise(weights, spec):
        biases = np.zeros(weights.shape[0], np.float32) if bias is None else bias
        return CpuDepthwise(readable(weights), readable(biases), spec)
    reach = REACH if tiling != "chunk" else chunk_columns(block)
    packed = pack(weights, bias, spec, block, reach)
    return CpuConv(packed, spec, weights.shape, _name(block, tiling), block, tiling)
