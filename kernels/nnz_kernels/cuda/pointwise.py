"""Element by element ops on the device, and the way into and out of planes."""

from __future__ import annotations

import numpy as np

from nnz_kernels.api.conv import check_buffer, check_floats
from nnz_kernels.api.pointwise import (
    UNARY_KINDS,
    UnaryKind,
    check_layout,
    check_unary,
)
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import Call, blocks_of
from nnz_kernels.cuda.family import Family, attachable
from nnz_kernels.planes import LINE, Grid

#: Side of the tile through which tokens are transposed, and rows of its block.
_TILE, _STEP = 32, 8

_BLOCK = (256, 1, 1)


class Pointwise(Family):
    """Element by element ops; see the Protocol for what each does."""

    @attachable
    def unary(
        self,
        kind: UnaryKind,
        x: DeviceArray,
        y: DeviceArray,
        /,
        *,
        alpha: float = 0.0,
        beta: float = 0.0,
    ) -> Call:
        """Launch ``unary`` of pointwise.cu."""
        check_unary(kind, x, y)
        is_plain = x.dtype == np.float32
        kind_of_both = np.float32 if is_plain else self.planes
        check_floats("x", x, kind_of_both)
        check_floats("y", y, kind_of_both)
        element = "float" if is_plain else self.element
        number = UNARY_KINDS.index(kind)
        return self.device.prepare(
            registry.find("unary", element), self.flat_grid(x.size), _BLOCK,
            number, alpha, beta, x.size, x, y,
        )  # fmt: skip

    @attachable
    def channel_affine(
        self,
        x: DeviceArray,
        scale: DeviceArray,
        shift: DeviceArray,
        lo: float,
        hi: float,
        y: DeviceArray,
        grid: Grid,
        channels: int,
        /,
    ) -> Call:
        """Launch ``channel_affine`` of pointwise.cu."""
        check_buffer("scale", scale, channels)
        check_buffer("shift", shift, channels)
        self._require(x, y, grid, channels)
        return self.device.prepare(
            self.kernel("channel_affine"), self.planes_grid(grid, channels), _BLOCK,
            self.plane(grid, channels), lo, hi, scale, shift, x, y,
        )  # fmt: skip

    @attachable
    def add_planes(
        self, a: DeviceArray, b: DeviceArray, y: DeviceArray, lo: float, hi: float, /
    ) -> Call:
        """Launch ``add_planes`` of pointwise.cu."""
        self.check_planes("a", a, a.size)
        self.check_planes("b", b, a.size)
        self.check_planes("y", y, a.size)
        return self.device.prepare(
            self.kernel("add_planes"), self.flat_grid(a.size), _BLOCK,
            a.size, lo, hi, a, b, y,
        )  # fmt: skip

    @attachable
    def prelu(
        self, x: DeviceArray, slope: DeviceArray, y: DeviceArray, grid: Grid,
        channels: int, /,
    ) -> Call:  # fmt: skip
        """Launch ``prelu`` of pointwise.cu."""
        check_buffer("slope", slope, channels)
        self._require(x, y, grid, channels)
        return self.device.prepare(
            self.kernel("prelu"), self.planes_grid(grid, channels), _BLOCK,
            self.plane(grid, channels), slope, x, y,
        )  # fmt: skip

    @attachable
    def zero_border(self, y: DeviceArray, grid: Grid, channels: int, /) -> Call:
        """Launch ``zero_border`` of pointwise.cu over places that are no pixels."""
        self.check_planes("y", y, grid.size(channels))
        rest = grid.ld + grid.lead + LINE - grid.pixels
        blocks = (blocks_of(rest, 256), *self.planes_grid(grid, channels)[1:])
        plane = self.plane(grid, channels)
        return self.device.prepare(self.kernel("zero_border"), blocks, _BLOCK, plane, y)

    @attachable
    def to_planes(self, x: DeviceArray, y: DeviceArray, grid: Grid, /) -> Call:
        """Launch ``to_planes`` of pointwise.cu."""
        check_layout("x", x, (grid.n, -1, grid.h, grid.w))
        channels = x.shape[1]
        check_floats("x", x)
        self.check_planes("y", y, grid.size(channels))
        return self.device.prepare(
            self.kernel("to_planes"), self.planes_grid(grid, channels), _BLOCK,
            self.plane(grid, channels), grid.h * grid.w, x, y,
        )  # fmt: skip

    @attachable
    def from_planes(
        self, x: DeviceArray, grid: Grid, channels: int, out: DeviceArray, /
    ) -> Call:
        """Launch ``from_planes`` of pointwise.cu."""
        check_layout("out", out, (grid.n, channels, grid.h, grid.w))
        check_floats("out", out)
        self.check_planes("x", x, grid.size(channels))
        return self.device.prepare(
            self.kernel("from_planes"), self.planes_grid(grid, channels), _BLOCK,
            self.plane(grid, channels), grid.h * grid.w, x, out,
        )  # fmt: skip

    @attachable
    def to_tokens(self, x: DeviceArray, y: DeviceArray, grid: Grid, /) -> Call:
        """Launch ``to_tokens`` of pointwise.cu."""
        check_layout("x", x, (grid.pixels, -1))
        features = x.shape[1]
        check_floats("x", x)
        self.check_planes("y", y, grid.size(features))
        domain = grid.ld + grid.lead + LINE
        blocks = (blocks_of(domain, _TILE), blocks_of(features, _TILE), 1)
        plane = self.plane(grid, features)
        kernel = self.kernel("to_tokens")
        return self.device.prepare(kernel, blocks, (_TILE, _STEP, 1), plane, x, y)

    @attachable
    def from_tokens(
        self, x: DeviceArray, grid: Grid, features: int, out: DeviceArray, /
    ) -> Call:
        """Launch ``from_tokens`` of pointwise.cu."""
        check_layout("out", out, (grid.pixels, features))
        check_floats("out", out)
        self.check_planes("x", x, grid.size(features))
        blocks = (blocks_of(grid.pixels, _TILE), blocks_of(features, _TILE), 1)
        plane = self.plane(grid, features)
        kernel = self.kernel("from_tokens")
        return self.device.prepare(kernel, blocks, (_TILE, _STEP, 1), plane, x, out)

    def _require(
        self, x: DeviceArray, y: DeviceArray, grid: Grid, channels: int
    ) -> None:
        self.check_planes("x", x, grid.size(channels))
        self.check_planes("y", y, grid.size(channels))
