"""LLVM intrinsics for sets of columns: bits of a word, and ranks among small keys."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnz_kernels.cpu._emit import I32, I64, loop
from nnz_kernels.cpu._simd import LANES

#: Keys that `count_less` looks at in one step; arrays of keys are padded to a multiple.
KEYS = LANES

#: What keys are padded with: no key is greater.
NO_KEY = 2**31 - 1

_intrinsic: Any = intrinsic


@_intrinsic
def lowest_bit(typingctx, word):  # type: ignore[no-untyped-def]
    """Return the number of the lowest bit that is set in a uint64; 64 for none."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), emit


@_intrinsic
def count_bits(typingctx, word):  # type: ignore[no-untyped-def]
    """Return how many bits are set in a uint64."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), emit


@_intrinsic
def count_less(typingctx, keys, steps, key):  # type: ignore[no-untyped-def]
    """Return how many of the first ``steps * KEYS`` int32 keys are less than one."""
    given = (types.Array(types.int32, 1, "C"), types.int64, types.int32)
    return types.int64(*given), _emit_count_less


def _emit_count_less(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Count in lanes: a comparison that holds is minus one."""
    pointer = context.make_array(sig.args[0])(context, builder, args[0]).data
    vector = ir.VectorType(I32, KEYS)
    zeros = ir.Constant(vector, [0] * KEYS)
    nothing = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(nothing, args[2], I32(0))
    wanted = builder.shuffle_vector(one, nothing, zeros)

    def compare(number: Any, carried: list[Any]) -> list[Any]:
        place = builder.gep(pointer, [builder.mul(number, I64(KEYS))])
        place = builder.bitcast(place, vector.as_pointer())
        less = builder.icmp_signed("<", builder.load(place, align=4), wanted)
        return [builder.sub(carried[0], builder.sext(less, vector))]

    (counts,) = loop(builder, args[1], [zeros], compare)
    name = f"llvm.vector.reduce.add.v{KEYS}i32"
    kind = ir.FunctionType(I32, [vector])
    add = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.zext(builder.call(add, [counts]), I64)
