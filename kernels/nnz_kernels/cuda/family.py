"""What the families of ops share: the device, tables of grids, and calls to attach."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy as np

from nnz_kernels.api.attach import Attachable
from nnz_kernels.api.conv import check_buffer
from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import MOST_ROWS, Call, Device, Tables, blocks_of
from nnz_kernels.cuda.launcher import Dim
from nnz_kernels.cuda.structs import Plane
from nnz_kernels.planes import LINE, Grid

P = ParamSpec("P")
S = TypeVar("S", bound="Family")


#: Names of the types of values and of indices, in C++.
VALUES = {
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
    np.dtype(np.complex128): "complex_t",
}
INDICES = {np.dtype(np.int32): "int", np.dtype(np.int64): "long long"}


def types_of(values: DeviceArray, indices: DeviceArray) -> tuple[str, str]:
    """Return the template arguments of a kernel for values and indices."""
    return VALUES[values.dtype], INDICES[indices.dtype]


class DeviceOp(Attachable[P]):
    """An op whose call can be recorded."""

    def __init__(self, make: Callable[P, Call], device: Device) -> None:
        super().__init__(make)
        self._device = device

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Check, and compute or record."""
        self._device.do(self.attach(*args, **kwargs))


class attachable(Generic[S, P]):  # noqa: N801 - a decorator
    """Make an op of a method that checks its arguments and returns a call to repeat."""

    def __init__(self, make: Callable[Concatenate[S, P], Call]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __get__(self, instance: S, owner: type[S] | None = None) -> DeviceOp[P]:
        bound: Callable[P, Call] = functools.partial(self._make, instance)
        functools.update_wrapper(bound, self._make)
        return DeviceOp(bound, instance.device)


#: Of each precision the type of planes on the host, and in C++. NumPy has no bfloat16:
#: its bits are in unsigned integers.
PRECISIONS: dict[str, tuple[np.dtype[Any], str]] = {
    "fp32": (np.dtype(np.float32), "float"),
    "fp16": (np.dtype(np.float16), "half_t"),
    "bf16": (np.dtype(np.uint16), "bf16_t"),
}


class Family:
    """Ops on one device.

    Args:
        device: Where arrays lie and kernels run.
        precision: Of planes and of the weights of layers, one of ``PRECISIONS``; sums
            and plain arrays are float32.
    """

    def __init__(self, device: Device, precision: str = "fp32") -> None:
        self.device = device
        self.tables = Tables(device)
        self.precision = precision
        self.planes, self.element = PRECISIONS[precision]

    def windows(
        self,
        grid: Grid,
        size: tuple[int, int],
        strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int] = (0, 0),
    ) -> DeviceArray:
        """Return where in a row the windows of *size* output pixels an image begin."""
        return self.tables.get(
            ("windows", grid, size, strides, pads),
            lambda: window_places(grid, size, strides, pads).astype(np.int32),
        )

    def kernel(self, name: str, *template: str | int) -> registry.Kernel:
        """Return a kernel for planes of this precision."""
        return registry.find(name, self.element, *template)

    def check_planes(self, name: str, buffer: DeviceArray, floats: int) -> None:
        """Check a flat buffer of planes.

        Raises:
            ShapeError: It is too short, not flat, or has gaps.
            DTypeError: It is of another type than planes are.
        """
        check_buffer(name, buffer, floats, self.planes)

    def plane(self, grid: Grid, channels: int) -> Plane:
        """Return the places of planes as kernels take them.

        The table of places is kept with the grid; see planes.cuh for its order.
        """
        table = self.tables.get(("places", grid), lambda: places(grid))
        sizes = (grid.ld, grid.pixels, grid.ld, table.size, channels)
        plane = Plane(table.address, *sizes)
        plane.table = table  # lives as long as a launch that has the struct
        return plane

    def planes_grid(self, grid: Grid, channels: int, threads: int = 256) -> Dim:
        """Return blocks for a thread a place: the domain, then channels."""
        return (
            blocks_of(grid.ld + grid.lead + LINE, threads),
            min(channels, MOST_ROWS),
            1,
        )

    def flat_grid(self, count: int, threads: int = 256) -> Dim:
        """Return blocks for loops over so many elements: as many as are resident."""
        most = 8 * self.device.launcher.processors
        return (min(blocks_of(count, threads), most), 1, 1)


def places(grid: Grid) -> HostArray:
    """Return the domain of a grid: places of pixels, then all others, then the tail."""
    pixels = pixel_places(grid)
    is_pixel = np.zeros(grid.ld, np.bool_)
    is_pixel[pixels] = True
    others = np.flatnonzero(~is_pixel)
    tail = np.arange(grid.ld, grid.ld + grid.lead + LINE)
    return np.concatenate([pixels, others, tail]).astype(np.int32)


def pixel_places(grid: Grid) -> HostArray:
    """Return the places of pixels in the order image, row, column."""
    return window_places(grid, (grid.h, grid.w), (1, 1), (0, 0))


def window_places(
    grid: Grid, size: tuple[int, int], strides: tuple[int, int], pads: tuple[int, int]
) -> HostArray:
    """Return where in a row the windows of *size* output pixels an image begin."""
    image, row, column = np.ogrid[: grid.n, : size[0], : size[1]]
    y = image * grid.rows + row * strides[0] - pads[0]
    x = column * strides[1] - pads[1]
    found: HostArray = (grid.lead + y * grid.pitch + x).ravel()
    return found


def flat(x: DeviceArray) -> DeviceArray:
    """Return an array in C order as one axis."""
    return x.reshape(x.size)


def as_int(value: Any) -> int:
    """Return a number that was read from the device."""
    return int(np.asarray(value).reshape(-1)[0])


def as_float(value: Any) -> float:
    """Return a number that was read from the device."""
    return float(np.asarray(value).reshape(-1)[0])
