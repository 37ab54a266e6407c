"""Arrays on the device: where they lie, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nnz_kernels.errors import ShapeError


class Memory(Protocol):
    """A piece of device memory, given back when nothing holds it any more."""

    @property
    def address(self) -> int:
        """Where it begins."""
        ...

    @property
    def nbytes(self) -> int:
        """Its size."""
        ...

    @property
    def stream(self) -> int | None:
        """Address of the stream that works on it; None if nothing does later."""
        ...


@dataclass(frozen=True, slots=True)
class Flags:
    """How elements lie, by NumPy's names."""

    c_contiguous: bool
    aligned: bool


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A view of device memory.

    It moves nothing and computes nothing; `Device` does. Libraries that know the CUDA
    array interface (CuPy, Numba, PyTorch) read it in place.

    Attributes:
        memory: What it keeps alive.
        offset: Bytes from the beginning of that to its first element.
        dtype: Type of its elements.
        shape: Elements along each axis.
        strides: Bytes from one element to the next along each axis.
    """

    memory: Memory
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def address(self) -> int:
        """Where its first element lies."""
        return self.memory.address + self.offset

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, gaps between them not counted."""
        return self.size * self.dtype.itemsize

    @property
    def flags(self) -> Flags:
        """How its elements lie."""
        return Flags(self.is_contiguous, self.address % self.dtype.itemsize == 0)

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements lie in C order without gaps."""
        if len(self.shape) == 1:  # nearly all, and every launch asks
            return self.strides[0] == self.dtype.itemsize or self.shape[0] <= 1
        wanted = contiguous(self.shape, self.dtype)
        axes = zip(self.shape, self.strides, wanted, strict=True)
        # Along an axis of one element there is no step.
        return self.size == 0 or all(n == 1 or own == right for n, own, right in axes)

    @property
    def extent(self) -> tuple[int, int]:
        """Bytes from its first element to its lowest, and to behind its highest."""
        if self.size == 0:
            return 0, 0
        pairs = zip(self.shape, self.strides, strict=True)
        steps = [(n - 1) * step for n, step in pairs]
        low = sum(step for step in steps if step < 0)
        return low, self.dtype.itemsize + sum(step for step in steps if step > 0)

    def reshape(self, *sizes: int | tuple[int, ...]) -> DeviceArray:
        """Return the same elements in another shape, in C order.

        Args:
            sizes: Of the axes, or all of them as a tuple; none may be -1.

        Raises:
            ShapeError: The sizes differ, or there are gaps.
        """
        is_whole = len(sizes) == 1 and isinstance(sizes[0], tuple)
        whole: Any = sizes[0] if is_whole else sizes
        shape = tuple(int(size) for size in whole)
        if math.prod(shape) != self.size or not self.is_contiguous:
            raise ShapeError(
                f"an array of shape {self.shape} and strides {self.strides} cannot "
                f"become {shape} without a copy"
            )
        return self._as(self.offset, shape, contiguous(shape, self.dtype))

    def part(self, start: int, stop: int) -> DeviceArray:
        """Return the elements from *start* to *stop* of the first axis."""
        offset = self.offset + start * self.strides[0]
        return self._as(offset, (stop - start, *self.shape[1:]), self.strides)

    def transposed(self, axes: tuple[int, ...]) -> DeviceArray:
        """Return the same elements with the axes in another order."""
        shape = tuple(self.shape[axis] for axis in axes)
        strides = tuple(self.strides[axis] for axis in axes)
        return self._as(self.offset, shape, strides)

    def _as(
        self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> DeviceArray:
        return DeviceArray(self.memory, offset, self.dtype, shape, strides)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the interface: who reads it waits for our stream first."""
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": self.strides,
            "stream": self.memory.stream,
        }


def contiguous(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Return the strides, in bytes, of an array in C order."""
    strides = []
    step = dtype.itemsize
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
