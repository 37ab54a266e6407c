"""A packed layer on one pair of grids: its tables of offsets, and its launches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nnz_kernels.api.attach import in_turn
from nnz_kernels.api.conv import BoundConv, Tiling, check_bind, check_buffers
from nnz_kernels.api.pointwise import UNARY_KINDS
from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import Call, blocks_of
from nnz_kernels.cuda.launcher import Product
from nnz_kernels.cuda.structs import Blocks, Columns, Ending, address
from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import Grid, round_up

if TYPE_CHECKING:
    from nnz_kernels.cuda.conv import CudaConv

#: Warps of a block: of the sparse kernel, and of those for tensor cores.
WARPS, MMA_WARPS, MMA_DENSE_WARPS = 8, 4, 8

#: Pixels of a warp on tensor cores.
MMA_SPAN = 64

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

#: Of each tiling of the depthwise kernel: pixels of a thread.
DEPTHWISE: dict[Tiling, int] = {"direct": 4, "narrow": 1}

_FLOAT = np.dtype(np.float32)

#: Parts of the columns at most.
MOST_PARTS = 8


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
        # A library's product reads and writes whole rows: both lie on one grid.
        is_library = conv.layout == "rows"
        self._read = y if is_library else Grid(x.n, x.h, x.w, bh, bw)
        self._inputs = conv.shape[1] * conv.spec.groups
        self._staged = self._read.size(self._inputs) if self._read != x else 0
        if self._read.size(self._inputs) >= 2**31:
            raise ShapeError(
                f"{self._inputs} planes of {self._read} have more than 2**31 floats; "
                "offsets have 32 bits: use a smaller batch"
            )
        size = y.h, y.w
        self._base = self._family.windows(
            self._read, size, conv.spec.strides, conv.spec.pads[:2]
        )
        self._offsets = self._device.to_device(self._column_offsets())
        self._parts = 1
        if conv.layout == "dense" and DENSE[conv.tiling][1]:
            columns = math.prod(conv.shape[1:])
            self._parts = min(MOST_PARTS, blocks_of(columns, DENSE[conv.tiling][1]))
        # Sums of parts, or of a library: float32, and aligned as it likes.
        sums = self._parts * conv.shape[0] * y.pixels if self._parts > 1 else 0
        if is_library:
            sums = conv.shape[0] * y.ld
        self._partial = sums * 4 // self._family.planes.itemsize
        self._staged = round_up(self._staged, 128) if sums else self._staged

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
        planes = self._family.planes
        check_buffers((self._x, self._y), channels, self.scratch, buffers, planes)
        calls, source = [], x
        if self._staged:
            source = scratch.part(0, self._staged)
            calls.append(self._stage(x, source))
        partial = self._device.view(
            scratch, self._staged * scratch.dtype.itemsize, _FLOAT,
            (self._partial * scratch.dtype.itemsize // 4,), (4,),
        )  # fmt: skip
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

    def _column_offsets(self) -> HostArray:
        """Return the distance of each stored column from the base of a window; -1 for
        none.
        """
        grid, (_, ic, kh, kw) = self._read, self._conv.shape
        channel, row, column = np.ogrid[: ic * self._conv.spec.groups, :kh, :kw]
        down, across = self._conv.spec.dilations
        channel = channel * (self._conv.layout != "depthwise")
        rest = row * down * grid.pitch + column * across
        offsets: HostArray = (channel * grid.ld + rest).ravel()
        columns = self._conv.packed.columns
        return np.where(columns < 0, -1, offsets[columns]).astype(np.int32)

    def _ending(self, residual: DeviceArray | None) -> Ending:
        lo, hi = self._conv.spec.clamp
        kind = UNARY_KINDS.index(self._conv.spec.activation or "identity")
        bias = self._conv.bias.address
        return Ending(bias, address(residual), lo, hi, kind, 0)

    # -- launches -------------------------------------------------------------------

    def _stage(self, x: DeviceArray, target: DeviceArray) -> Call:
        base = self._family.windows(self._x, (self._x.h, self._x.w))
        plane = self._family.plane(self._read, self._inputs)
        grid = self._family.planes_grid(self._read, self._inputs)
        kernel = self._family.kernel("copy_planes")
        return self._device.prepare(
            kernel, grid, (256, 1, 1), plane, base, self._x.ld, x, target
        )

    def _launches(
        self, x: DeviceArray, y: DeviceArray, end: Ending, partial: DeviceArray
    ) -> list[Call]:
        if self._conv.layout == "dense":
            return self._dense(x, y, end, partial)
        if self._conv.layout == "rows":
            return self._library(x, y, end, partial)
        launch = {
            "blocks": self._sparse,
            "depthwise": self._depthwise,
            "fragments": self._mma,
            "dense_fragments": self._mma_dense,
            "bitmap": self._mma_dense,
        }[self._conv.layout]
        return [launch(x, y, end)]

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
        tiles = blocks_of(plane.domain, 32 * width)
        grid = (tiles * blocks_of(rows, WARPS // parts), 1, 1)
        kernel = self._family.kernel("conv_block", block, width)
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

    def _fragments(self) -> Blocks:
        packed = self._conv.packed
        arrays = (packed.order, packed.channels, packed.indptr, self._offsets)
        return Blocks(*map(address, (*arrays, packed.values)), packed.rows, 0)

    def _mma(self, x: DeviceArray, y: DeviceArray, end: Ending) -> Call:
        plane, rows = self._plane(), self._conv.packed.rows
        grid = (blocks_of(plane.domain, MMA_SPAN), blocks_of(rows, MMA_WARPS), 1)
        kernel = self._family.kernel("conv_mma", self._conv.block or 0)
        return self._device.prepare(
            kernel, grid, (32, MMA_WARPS, 1),
            plane, self._base, self._fragments(), x, end, y,
        )  # fmt: skip

    def _mma_dense(self, x: DeviceArray, y: DeviceArray, end: Ending) -> Call:
        plane, packed = self._plane(), self._conv.packed
        grid = (
            blocks_of(plane.domain, MMA_SPAN),
            blocks_of(packed.rows, MMA_DENSE_WARPS),
            self._conv.spec.groups,
        )
        name = "conv_mma_dense" if packed.masks is None else "conv_mma_bitmap"
        masks = () if packed.masks is None else (packed.masks,)
        kernel = self._family.kernel(name)
        return self._device.prepare(
            kernel, grid, (32, MMA_DENSE_WARPS, 1),
            plane, self._base, self._fragments(), *masks, packed.pitch, x, end, y,
        )  # fmt: skip

    def _library(
        self, x: DeviceArray, y: DeviceArray, end: Ending, sums: DeviceArray
    ) -> list[Call]:
        """Multiply whole rows of planes, zeros between pixels too."""
        grid, values = self._y, self._conv.packed.values
        oc, ic = self._conv.shape[:2]
        product = Product(
            oc, grid.ld, ic, values.address, x.address, sums.address, grid.ld,
            self._family.precision,
        )  # fmt: skip
        blocks = self._family.planes_grid(grid, oc)
        kernel, plane = self._family.kernel("conv_ending"), self._plane()
        return [
            self._device.product(product, values, x, sums),
            self._device.prepare(kernel, blocks, (256, 1, 1), plane, sums, end, y),
        ]

    def _depthwise(self, x: DeviceArray, y: DeviceArray, end: Ending) -> Call:
        conv = self._conv
        width = DEPTHWISE[conv.tiling]
        oc, _, kh, kw = conv.shape
        grid = self._family.planes_grid(self._y, oc, 128 * width)
        return self._device.prepare(
            self._family.kernel("conv_depthwise", width), grid, (128, 1, 1),
            self._plane(), self._base, kh * kw, self._offsets, conv.packed.values,
            self._read.ld, oc // conv.spec.groups, x, end, y,
        )  # fmt: skip


def _run(calls: list[Call], kept: object) -> None:
    in_turn(calls)
