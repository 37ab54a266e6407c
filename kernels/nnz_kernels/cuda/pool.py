"""Pooling of planes on the device."""

from __future__ import annotations

from nnz_kernels.api.pool import PoolSpec, check_global_pool, check_pool
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import MOST_ROWS, Call, blocks_of
from nnz_kernels.cuda.family import Family, attachable
from nnz_kernels.cuda.structs import Window
from nnz_kernels.planes import LINE, Grid

#: Warps of a block that takes means of whole images.
_MEANS = 4


class Pools(Family):
    """Pooling; every op writes all of ``y``."""

    @attachable
    def max_pool(
        self,
        x: DeviceArray,
        xg: Grid,
        y: DeviceArray,
        yg: Grid,
        channels: int,
        spec: PoolSpec,
        /,
        *,
        threads: int,
    ) -> Call:
        """Launch ``max_pool`` of pool.cu."""
        return self._pool("max_pool", x, xg, y, yg, channels, spec)

    @attachable
    def average_pool(
        self,
        x: DeviceArray,
        xg: Grid,
        y: DeviceArray,
        yg: Grid,
        channels: int,
        spec: PoolSpec,
        /,
        *,
        threads: int,
    ) -> Call:
        """Launch ``average_pool`` of pool.cu."""
        return self._pool("average_pool", x, xg, y, yg, channels, spec)

    @attachable
    def global_average_pool(
        self,
        x: DeviceArray,
        xg: Grid,
        y: DeviceArray,
        yg: Grid,
        channels: int,
        /,
        *,
        threads: int,
    ) -> Call:
        """Launch ``global_average_pool`` of pool.cu: a warp an image and channel."""
        check_global_pool(xg, yg)
        self.check_planes("x", x, xg.size(channels))
        self.check_planes("y", y, yg.size(channels))
        grid = (
            blocks_of(yg.ld + yg.lead + LINE, _MEANS), min(channels, MOST_ROWS), 1,
        )  # fmt: skip
        planes = self.plane(yg, channels), self.plane(xg, channels)
        kernel = self.kernel("global_average_pool")
        return self.device.prepare(kernel, grid, (32, _MEANS, 1), *planes, x, y)

    def _pool(
        self,
        name: str,
        x: DeviceArray,
        xg: Grid,
        y: DeviceArray,
        yg: Grid,
        channels: int,
        spec: PoolSpec,
    ) -> Call:
        check_pool(xg, yg, spec)
        self.check_planes("x", x, xg.size(channels))
        self.check_planes("y", y, yg.size(channels))
        window = Window(
            *spec.kernel, *spec.strides, *spec.dilations, *spec.pads,
            xg.h, xg.w, yg.h, yg.w, xg.lead, xg.pitch, xg.rows,
            int(spec.count_include_pad),
        )  # fmt: skip
        grid = self.planes_grid(yg, channels)
        plane = self.plane(yg, channels)
        kernel = self.kernel(name)
        return self.device.prepare(
            kernel, grid, (256, 1, 1), plane, window, xg.ld, x, y
        )
