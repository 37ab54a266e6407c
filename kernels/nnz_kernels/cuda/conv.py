"""Convolutions and linear layers on the device: packed, bound, launched."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

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
from nnz_kernels.api.pointwise import UNARY_KINDS
from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import Call, blocks_of, in_turn
from nnz_kernels.cuda.family import Family, window_places
from nnz_kernels.cuda.pack import Packed, pack_blocks, pack_columns, pack_depthwise
from nnz_kernels.cuda.source import module_source
from nnz_kernels.cuda.structs import Blocks, Columns, Ending, address
from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import Grid

#: Warps of a block of the sparse kernel.
WARPS = 8

#: Warps a multiprocessor should have to hide the time that memory takes.
RESIDENT = 16

#: Of each tiling of the sparse kernel: whether a lane has several pixels, and how many
#: warps share a row.
SPARSE: dict[Tiling, tuple[bool, int]] = {
    "direct": (True, 1), "panel": (True, 4), "narrow": (False, 1), "chunk": (False, 8),
}  # fmt: skip

#: Of each tiling of the dense kernel: its tile, and columns of a part, 0 for all.
DENSE: dict[Tiling, tuple[tuple[int, int, int, int], int]] = {
    "direct": (registry.DENSE_TILES[0], 0),
    "panel": (registry.DENSE_TILES[1], 0),
    "narrow": (registry.DENSE_TILES[2], 0),
    "chunk": (registry.DENSE_TILES[0], 128),
}

#: Parts of the columns at most.
MOST_PARTS = 8

_DEPTHWISE: dict[Tiling, int] = {"direct": 4, "narrow": 1}


class Convolutions(Family):
    """Convolutions of planes."""

    def identity(self) -> str:
        """Return a name of device and kernels."""
        text = "".join(map(module_source, registry.MODULES))
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        name = self.device.launcher.name.replace(" ", "-").replace("/", "-")
        return f"cuda-{name}-{digest}"

    def tilings(
        self, shape: tuple[int, ...], spec: ConvSpec, block: int | None, pixels: int, /
    ) -> tuple[Tiling, ...]:
        """Return all tilings, first the widest that fills the device."""
        if spec.groups > 1 and shape[1] == 1:
            return tuple(_DEPTHWISE)
        enough = RESIDENT * self.device.launcher.processors
        if block is None:
            tiles = math.ceil(shape[0] / 64) * math.ceil(pixels / 64)
            first: Tiling = "direct" if WARPS * tiles >= enough else "chunk"
            return (first, *(t for t in DENSE if t != first))
        wide = registry.BLOCK_WIDTHS[block][-1]
        rows, lanes = math.ceil(shape[0] / block), math.ceil(pixels / 32)
        order: tuple[Tiling, ...] = ("direct", "panel", "narrow", "chunk")
        warps = (rows * lanes / wide, 4 * rows * lanes / wide, rows * lanes)
        for tiling, count in zip(order, warps, strict=False):
            if count >= enough:
                return (tiling, *(t for t in order if t != tiling))
        return ("chunk", "narrow", "panel", "direct")

    def prepare_conv(
        self,
        weights: HostArray,
        bias: HostArray | None,
        spec: ConvSpec,
        /,
        *,
        block: int | None,
        tiling: Tiling = "direct",
    ) -> CudaConv:
        """Pack on the host, upload."""
        check_weights(weights, bias, spec, block)
        if bias is None:
            bias = np.zeros(weights.shape[0], np.float32)
        kernel, pack, known = "dense", pack_columns(weights, spec.groups), set(DENSE)
        if is_depthwise(weights, spec):
            kernel, block, pack = "depthwise", None, pack_depthwise(weights)
            known = set(_DEPTHWISE)
        elif block is not None:
            kernel, known = f"spmm_b{block}", set(SPARSE)
            pack = pack_blocks(weights, spec.groups, block)
        if tiling not in known:
            tiling = "direct"
        shape = (weights.shape[0], weights.shape[1], *weights.shape[2:])
        moved = pack.map(self.device.to_device)
        bias_there = self.device.to_device(bias)
        return CudaConv(self, shape, spec, kernel, block, tiling, moved, bias_there)


@dataclass(frozen=True)
class CudaConv:
    """Packed weights of one layer on the device."""

    family: Convolutions
    shape: tuple[int, ...]
    spec: ConvSpec
    layout: str
    block: int | None
    tiling: Tiling
    packed: Packed[DeviceArray]
    bias: DeviceArray

    @property
    def kernel(self) -> str:
        """Name of layout and tiling."""
        return (
            self.layout if self.tiling == "direct" else f"{self.layout}_{self.tiling}"
        )

    @property
    def nnz(self) -> int:
        """Weights that are multiplied."""
        return self.packed.nnz

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.packed.nbytes + self.bias.nbytes

    @property
    def density(self) -> float:
        """Share of the weights that is multiplied."""
        return self.nnz / math.prod(self.shape)

    def retiled(self, tiling: Tiling, /) -> CudaConv:
        """Return the same weights: no tiling needs others."""
        return replace(self, tiling=tiling)

    def bind(self, x: Grid, y: Grid, /, *, threads: int = 1) -> BoundConv[DeviceArray]:
        """Work out the tables of offsets and upload them."""
        return CudaBoundConv(self, x, y)


class CudaBoundConv(BoundConv[DeviceArray]):
    """A convolution of two grids.

    An input whose border does not hold the padding is first copied into one that does.
    """

    def __init__(self, conv: CudaConv, x: Grid, y: Grid) -> None:
        check_bind(x, y, (conv.shape[2], conv.shape[3]), conv.spec)
        self._conv, self._x, self._y = conv, x, y
        self._family, self._device = conv.family, conv.family.device
        top, left, bottom, right = conv.spec.pads
        bh, bw = max(x.bh, top, bottom), max(x.bw, left, right)
        self._read = Grid(x.n, x.h, x.w, bh, bw)
        self._inputs = conv.shape[1] * conv.spec.groups
        self._staged = self._read.size(self._inputs) if self._read != x else 0
        if self._read.size(self._inputs) >= 2**31:
            raise ShapeError(
                f"{self._inputs} planes of {self._read} have more than 2**31 floats; "
                "offsets have 32 bits: use a smaller batch"
            )
        self._base = self._table(conv.spec.strides, conv.spec.pads)
        self._offsets = self._device.to_device(self._column_offsets())
        self._parts = 1
        if conv.layout == "dense" and DENSE[conv.tiling][1]:
            columns = math.prod(conv.shape[1:])
            self._parts = min(MOST_PARTS, blocks_of(columns, DENSE[conv.tiling][1]))
        self._partial = self._parts * conv.shape[0] * y.pixels if self._parts > 1 else 0

    @property
    def scratch(self) -> int:
        """Floats for a staged input and for parts of sums."""
        return self._staged + self._partial

    def attach(
        self,
        x: DeviceArray,
        y: DeviceArray,
        residual: DeviceArray | None,
        scratch: DeviceArray,
        /,
    ) -> Callable[[], None]:
        """Check the buffers and put the arguments of all launches in place."""
        channels = self._inputs, self._conv.shape[0]
        buffers = (x, y, residual, scratch)
        check_buffers((self._x, self._y), channels, self.scratch, buffers)
        calls, source = [], x
        if self._staged:
            source = scratch.part(0, self._staged)
            calls.append(self._stage(x, source))
        partial = scratch.part(self._staged, scratch.size)
        calls += self._launches(source, y, self._ending(residual), partial)
        # What the arguments point to must live as long as the call.
        kept = (self, x, y, residual, scratch)
        return lambda: _run(calls, kept)

    def run(
        self,
        x: DeviceArray,
        y: DeviceArray,
        residual: DeviceArray | None,
        scratch: DeviceArray,
        /,
    ) -> None:
        """Attach and launch."""
        self.attach(x, y, residual, scratch)()

    # -- tables ---------------------------------------------------------------------

    def _table(
        self, strides: tuple[int, int], pads: tuple[int, int, int, int]
    ) -> DeviceArray:
        size, grid = (self._y.h, self._y.w), self._read
        return self._family.tables.get(
            ("windows", grid, size, strides, pads[:2]),
            lambda: window_places(grid, size, strides, pads[:2]).astype(np.int32),
        )

    def _column_offsets(self) -> HostArray:
        """Return the distance of each stored column from the base of a window."""
        grid, (_, ic, kh, kw) = self._read, self._conv.shape
        channel, row, column = np.ogrid[: ic * self._conv.spec.groups, :kh, :kw]
        down, across = self._conv.spec.dilations
        channel = channel * (self._conv.layout != "depthwise")
        rest = row * down * grid.pitch + column * across
        offsets: HostArray = (channel * grid.ld + rest).ravel()
        return offsets[self._conv.packed.columns].astype(np.int32)

    def _ending(self, residual: DeviceArray | None) -> Ending:
        lo, hi = self._conv.spec.clamp
        kind = UNARY_KINDS.index(self._conv.spec.activation or "identity")
        bias = self._conv.bias.address
        return Ending(bias, address(residual), lo, hi, kind, 0)

    # -- launches -------------------------------------------------------------------

    def _stage(self, x: DeviceArray, target: DeviceArray) -> Call:
        base = self._family.tables.get(
            ("windows", self._x, (self._x.h, self._x.w), (1, 1), (0, 0)),
            lambda: window_places(
                self._x, (self._x.h, self._x.w), (1, 1), (0, 0)
            ).astype(np.int32),
        )
        plane = self._family.plane(self._read, self._inputs)
        grid = self._family.planes_grid(self._read, self._inputs)
        kernel = registry.find("copy_planes")
        return self._device.prepare(
            kernel, grid, (256, 1, 1), plane, base, self._x.ld, x, target
        )

    def _launches(
        self, x: DeviceArray, y: DeviceArray, end: Ending, partial: DeviceArray
    ) -> list[Call]:
        layout = self._conv.layout
        if layout == "depthwise":
            return [self._depthwise(x, y, end)]
        if layout == "dense":
            return self._dense(x, y, end, partial)
        return [self._sparse(x, y, end)]

    def _plane(self) -> Any:
        return self._family.plane(self._y, self._conv.shape[0])

    def _sparse(self, x: DeviceArray, y: DeviceArray, end: Ending) -> Call:
        conv = self._conv
        block, packed = conv.block or 1, conv.packed
        is_wide, parts = SPARSE[conv.tiling]
        width = registry.BLOCK_WIDTHS[block][-1 if is_wide else 0]
        rows = packed.rows
        arrays = (packed.order, packed.channels, packed.indptr, self._offsets)
        blocks = Blocks(*map(address, (*arrays, packed.values)), rows, parts)
        plane = self._plane()
        grid = (
            blocks_of(plane.domain, 32 * width), blocks_of(rows, WARPS // parts), 1,
        )  # fmt: skip
        kernel = registry.find("conv_block", block, width)
        return self._device.prepare(
            kernel, grid, (32, WARPS, 1), plane, self._base, blocks, x, end, y
        )

    def _dense(
        self, x: DeviceArray, y: DeviceArray, end: Ending, partial: DeviceArray
    ) -> list[Call]:
        conv, plane = self._conv, self._plane()
        groups, (oc, ic, kh, kw) = conv.spec.groups, conv.shape
        tile = DENSE[conv.tiling][0]
        columns = Columns(
            self._offsets.address, conv.packed.values.address, groups, oc // groups,
            conv.packed.pitch, ic * kh * kw, self._parts, 0,
        )  # fmt: skip
        grid = (
            blocks_of(plane.domain, tile[1]), blocks_of(oc // groups, tile[0]),
            groups * self._parts,
        )  # fmt: skip
        threads = tile[0] // tile[2] * (tile[1] // tile[3])
        calls = [
            self._device.prepare(
                registry.find("conv_dense", *tile), grid, (threads, 1, 1),
                plane, self._base, columns, x, end, y, partial,
            )
        ]  # fmt: skip
        if self._parts > 1:
            calls.append(
                self._device.prepare(
                    registry.find("conv_finish"), self._family.planes_grid(self._y, oc),
                    (256, 1, 1), plane, self._parts, partial, end, y,
                )
            )  # fmt: skip
        return calls

    def _depthwise(self, x: DeviceArray, y: DeviceArray, end: Ending) -> Call:
        conv = self._conv
        width = _DEPTHWISE.get(conv.tiling, 4)
        oc, _, kh, kw = conv.shape
        grid = self._family.planes_grid(self._y, oc, 128 * width)
        return self._device.prepare(
            registry.find("conv_depthwise", width), grid, (128, 1, 1),
            self._plane(), self._base, kh * kw, self._offsets, conv.packed.values,
            self._read.ld, oc // conv.spec.groups, x, end, y,
        )  # fmt: skip


def _run(calls: list[Call], kept: object) -> None:
    in_turn(calls)
