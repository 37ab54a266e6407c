"""Calls whose arguments were checked and written down once.

Numba looks at every argument of every call: two microseconds for twenty arrays, more
where Python's memory has left the cache. A network calls each kernel with the same
buffers again and again, so their addresses and sizes are written into a *frame*, and
the compiled function takes the address of that.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np import numpy_support
from numba.np.arrayobj import populate_array

from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._emit import F32, I32, I64


class Sealed(functools.partial[None]):
    """A call without arguments, with what its frame points to.

    Attributes:
        kept: Holds the frame and its arrays.
    """

    kept: tuple[Any, ...]


def sealed(function: Any, signature: Sequence[Any], *arguments: Any) -> Sealed:
    """Return the call of a function that takes a frame.

    Args:
        function: Jitted; reads its frame by the ``reader`` of the same signature.
        signature: Numba's types of the arguments: arrays in C order, int64, float32
            and boolean.
        arguments: Their values. Arrays must stay where they are.

    Raises:
        TypeError: An array has another type, or gaps.
    """
    words: list[int] = []
    for kind, value in zip(signature, arguments, strict=True):
        if isinstance(kind, types.Array):
            words += _array(kind, value)
        elif kind == types.float32:
            words.append(int(np.float32(value).view(np.int32)))
        else:
            words.append(int(value))
    frame = np.array(words, np.int64)
    call = Sealed(function, frame.ctypes.data)
    call.kept = (frame, arguments)
    return call


def _array(kind: Any, value: HostArray) -> list[int]:
    wanted = numpy_support.as_dtype(kind.dtype)
    right = value.dtype == wanted and value.ndim == kind.ndim
    if not (right and value.flags.c_contiguous and value.flags.aligned):
        raise TypeError(
            f"wanted {kind.ndim}-D {wanted} in C order, got {value.ndim}-D "
            f"{value.dtype} with strides {value.strides}"
        )
    return [value.ctypes.data, *value.shape]


def reader(signature: Sequence[Any]) -> Any:
    """Return the intrinsic that takes the address of a frame to its arguments."""
    kinds: Any = types
    found = kinds.Tuple(tuple(signature))

    def typed(typingctx: Any, frame: Any) -> tuple[Any, Any]:
        def write(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            words = _Words(context, builder, args[0])
            values = [words.take(kind) for kind in signature]
            return context.make_tuple(builder, found, values)

        return found(types.int64), write

    return intrinsic(typed)


class _Words:
    """Writes the loads of one argument after the other."""

    def __init__(self, context: Any, builder: Any, frame: Any) -> None:
        self.context, self.builder, self.used = context, builder, 0
        self.frame = builder.inttoptr(frame, I64.as_pointer())

    def _next(self) -> Any:
        place = self.builder.gep(self.frame, [I64(self.used)])
        self.used += 1
        return self.builder.load(place)

    def take(self, kind: Any) -> Any:
        builder = self.builder
        if isinstance(kind, types.Array):
            return self._array(kind)
        word = self._next()
        if kind == types.float32:
            return builder.bitcast(builder.trunc(word, I32), F32)
        if kind == types.boolean:
            return builder.icmp_signed("!=", word, I64(0))
        return word

    def _array(self, kind: Any) -> Any:
        context, builder = self.context, self.builder
        array = context.make_array(kind)(context, builder)
        data = builder.inttoptr(self._next(), array.data.type)
        shape = [self._next() for _ in range(kind.ndim)]
        item = I64(numpy_support.as_dtype(kind.dtype).itemsize)
        strides = [item]
        for size in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], size))
        # Without an owner nobody counts references to it.
        fill: Any = populate_array
        fill(array, data, shape, strides, item, meminfo=None)
        return array._getvalue()
