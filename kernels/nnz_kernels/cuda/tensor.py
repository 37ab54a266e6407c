"""Ops on plain arrays on the device."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence

import numpy as np

from nnz_kernels.api.conv import check_floats, check_steady
from nnz_kernels.api.tensor import (
    BINARY_KINDS,
    REDUCE_KINDS,
    BinaryKind,
    ReduceKind,
    check_axes,
    check_binary,
    check_copy,
    check_layer_norm,
    check_matmul,
    check_reduce,
)
from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import MOST_ROWS, blocks_of
from nnz_kernels.cuda.family import Family
from nnz_kernels.cuda.structs import Walk
from nnz_kernels.errors import DTypeError, ShapeError

#: Side of a tile of the product, rows of a block of warps.
_SIDE, _ROWS = 64, 8

_BLOCK = (256, 1, 1)

#: Names of unsigned types by their bytes, in C++.
_ELEMENTS = {
    1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long",
}  # fmt: skip


class Tensors(Family):
    """Ops that give a new array."""

    def softmax(self, x: DeviceArray, axis: int, /) -> DeviceArray:
        """Launch ``softmax`` of tensor.cu on rows."""
        return self._softmax(x, axis, 0)

    def log_softmax(self, x: DeviceArray, axis: int, /) -> DeviceArray:
        """Launch ``softmax`` of tensor.cu on rows, for its logarithm."""
        return self._softmax(x, axis, 1)

    def layer_norm(
        self,
        x: DeviceArray,
        gamma: DeviceArray,
        beta: DeviceArray | None,
        eps: float,
        /,
    ) -> DeviceArray:
        """Launch ``layer_norm`` of tensor.cu."""
        check_layer_norm(x, gamma, beta)
        for name, array in (("x", x), ("gamma", gamma), ("beta", beta)):
            if array is not None:
                check_floats(name, array)
        out = self.device.empty(x.shape, np.float32)
        rows = x.size // max(gamma.size, 1)
        self.device.launch(
            registry.find("layer_norm"), (blocks_of(rows, _ROWS), 1, 1), (32, _ROWS, 1),
            eps, rows, gamma.size, x, gamma, beta, out,
        )  # fmt: skip
        return out

    def matmul(self, a: DeviceArray, b: DeviceArray, /) -> DeviceArray:
        """Launch ``matmul`` of tensor.cu, items along the third axis of the grid."""
        check_matmul(a, b)
        check_floats("a", a)
        check_floats("b", b)
        left = a if a.ndim > 1 else a.reshape(1, a.size)
        right = b if b.ndim > 1 else b.reshape(b.size, 1)
        (m, depth), n = left.shape[-2:], right.shape[-1]
        lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        tail = (*((m,) if a.ndim > 1 else ()), *((n,) if b.ndim > 1 else ()))
        out = self.device.empty((*lead, *tail), np.float32)
        items = math.prod(lead)
        places = [
            self.tables.get(
                ("matmul", lead, one.shape),
                functools.partial(_item_places, one.shape, lead),
            )
            for one in (left, right)
        ]
        for first in range(0, items, MOST_ROWS):
            last = min(items, first + MOST_ROWS)
            grid = (blocks_of(n, _SIDE), blocks_of(m, _SIDE), last - first)
            at = [table.part(first, last) for table in places]
            target = out.reshape(items, m * n).part(first, last)
            self.device.launch(
                registry.find("matmul"), grid, _BLOCK,
                m, n, depth, *at, left, right, target,
            )  # fmt: skip
        return out

    def reduce(
        self,
        kind: ReduceKind,
        x: DeviceArray,
        axes: Sequence[int] | None,
        keepdims: bool,
        /,
    ) -> DeviceArray:
        """Launch ``reduce`` of tensor.cu on rows."""
        over = check_reduce(kind, x, axes)
        check_floats("x", x)
        kept = tuple(axis for axis in range(x.ndim) if axis not in over)
        shape = tuple(
            1 if axis in over else size
            for axis, size in enumerate(x.shape)
            if keepdims or axis not in over
        )
        out = self.device.empty(shape, np.float32)
        rows = self._last(x, kept, over)
        count = math.prod(x.shape[axis] for axis in kept)
        number = REDUCE_KINDS.index(kind)
        size = math.prod(x.shape[axis] for axis in over)
        self.device.launch(
            registry.find("reduce"), (blocks_of(count, _ROWS), 1, 1), (32, _ROWS, 1),
            number, count, size, rows, out,
        )  # fmt: skip
        return out

    def binary(
        self,
        kind: BinaryKind,
        a: DeviceArray,
        b: DeviceArray,
        /,
    ) -> DeviceArray:
        """Launch ``binary`` of tensor.cu."""
        check_binary(kind, a, b)
        for name, one in (("a", a), ("b", b)):
            if one.dtype != np.float32:
                raise DTypeError(f"{name} must be float32, got {one.dtype}")
        shape = np.broadcast_shapes(a.shape, b.shape)
        out = self.device.empty(shape, np.float32)
        walk = _walk(shape, _broadcast(a, shape), _broadcast(b, shape), 4)
        number = BINARY_KINDS.index(kind)
        self.device.launch(
            registry.find("binary"), self.flat_grid(out.size), _BLOCK,
            number, walk, a, b, out,
        )  # fmt: skip
        return out

    def copy(self, x: DeviceArray, y: DeviceArray, /) -> None:
        """Launch ``copy_strided`` of tensor.cu, or copy bytes if there are no gaps."""
        check_copy(x, y)
        if x.shape == y.shape and x.is_contiguous and y.is_contiguous:
            self.device.copy(x, y)
            return
        size = x.dtype.itemsize
        walk = _walk(y.shape, _broadcast(x, y.shape), y.strides, size)
        kernel = registry.find("copy_strided", _ELEMENTS[size])
        self.device.launch(kernel, self.flat_grid(y.size), _BLOCK, walk, x, y)

    def fill(self, y: DeviceArray, value: float, /) -> None:
        """Launch ``fill`` of tensor.cu."""
        if value == 0:
            check_steady("y", y)
            self.device.zero(y)
            return
        check_floats("y", y)
        kernel = registry.find("fill")
        self.device.launch(kernel, self.flat_grid(y.size), _BLOCK, y.size, value, y)

    def _softmax(self, x: DeviceArray, axis: int, log: int) -> DeviceArray:
        over = check_axes(x, (axis,))
        check_floats("x", x)
        out = self.device.empty(x.shape, np.float32)
        kept = tuple(a for a in range(x.ndim) if a not in over)
        size = x.shape[over[0]]
        count = x.size // max(size, 1)
        rows = self._last(x, kept, over)
        target = out if rows is x else self.device.empty(rows.shape, np.float32)
        self.device.launch(
            registry.find("softmax"), (blocks_of(count, _ROWS), 1, 1), (32, _ROWS, 1),
            log, count, size, rows, target,
        )  # fmt: skip
        if target is not out:
            back = np.argsort((*kept, *over))
            self.copy(target.transposed(tuple(int(i) for i in back)), out)
        return out

    def _last(
        self, x: DeviceArray, kept: tuple[int, ...], over: tuple[int, ...]
    ) -> DeviceArray:
        """Return *x* with the axes *over* last, in C order."""
        axes = (*kept, *over)
        if axes == tuple(range(x.ndim)):
            return x
        moved = x.transposed(axes)
        packed = self.device.empty(moved.shape, x.dtype)
        self.copy(moved, packed)
        return packed


def _item_places(shape: tuple[int, ...], lead: tuple[int, ...]) -> HostArray:
    """Return where the matrix of each item begins, in floats."""
    count, each = math.prod(shape[:-2]), math.prod(shape[-2:])
    own = (np.arange(count, dtype=np.int64) * each).reshape(shape[:-2])
    return np.ascontiguousarray(np.broadcast_to(own, lead)).ravel()


def _broadcast(x: DeviceArray, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in bytes, of an array over a larger shape."""
    missing = len(shape) - x.ndim
    own = [
        0 if size == 1 else step for size, step in zip(x.shape, x.strides, strict=True)
    ]
    return (*(0,) * missing, *own)


def _walk(
    shape: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...], itemsize: int
) -> Walk:
    """Return a walk over a shape; neighbouring axes that lie alike are made one.

    Args:
        shape: Sizes of the axes.
        a: Strides of the first operand in bytes.
        b: Strides of the second.
        itemsize: Bytes of an element.
    """
    axes: list[tuple[int, int, int]] = []
    for size, left, right in zip(shape, a, b, strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1:] == (left * size, right * size):
            axes[-1] = (axes[-1][0] * size, left, right)
        else:
            axes.append((size, left, right))
    if len(axes) > Walk.RANK:
        raise ShapeError(f"more than {Walk.RANK} axes that lie apart: shape {shape}")
    longs = ctypes.c_int64 * Walk.RANK
    sizes, lefts, rights = zip(*axes, strict=True) if axes else ((), (), ())
    return Walk(
        longs(*sizes), longs(*(s // itemsize for s in lefts)),
        longs(*(s // itemsize for s in rights)), math.prod(shape), len(axes), 0,
    )  # fmt: skip
