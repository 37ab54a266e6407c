"""Calls that several threads share, each with a frame of its own.

The compiled function is called by its address, as C would: a parallel loop that names
it makes LLVM compile all of it a second time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnz_kernels.cpu._emit import I64
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._frame import Sealed, sealed
from nnz_kernels.cpu._runtime import PARALLEL


def shares(total: int, chunks: int) -> list[tuple[int, int]]:
    """Return where each of equal shares of ``range(total)`` starts and stops."""
    bounds = [total * chunk // chunks for chunk in range(chunks + 1)]
    return [*itertools.pairwise(bounds)]


def together(
    function: Any, signature: Sequence[Any], parts: Sequence[tuple[Any, ...]]
) -> Sealed:
    """Return the call of a function that takes a frame, once for each part.

    Args:
        function: Jitted; reads its frame by the ``reader`` of the same signature.
        signature: Numba's types of the arguments.
        parts: Arguments of each call. More than one run at the same time, as far as
            there are threads.

    Raises:
        TypeError: An array has another type, or gaps.
    """
    calls = [sealed(function, signature, *part) for part in parts]
    if len(calls) == 1:
        return calls[0]
    frames = np.array([call.args[0] for call in calls], np.int64)
    shared = Sealed(_together, _address(function), frames)
    shared.kept = tuple(calls)
    return shared


def _address(function: Any) -> int:
    """Return where the machine code of ``void f(int64 frame)`` begins."""
    signature = (types.int64,)
    function.compile(signature)
    found = function.overloads[signature]
    name = found.fndesc.llvm_cfunc_wrapper_name
    return int(found.library.get_pointer_to_function(name))


_intrinsic: Any = intrinsic


@_intrinsic
def _call(typingctx, function, frame):  # type: ignore[no-untyped-def]
    def write(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), write


@numba.njit(**PARALLEL)
def _together(function, frames):  # type: ignore[no-untyped-def]
    for c in numba.prange(frames.size):
        _call(function, frames[c])


ENTRIES = (Entry(_together, ((types.int64, types.int64[::1]),)),)
