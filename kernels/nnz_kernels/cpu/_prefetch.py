"""The LLVM intrinsic that has a cache line brought near while other work goes on."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_intrinsic: Any = intrinsic


@_intrinsic
def prefetch(typingctx, array, place):  # type: ignore[no-untyped-def]
    """Ask for the cache line of an element; it need not exist, nothing waits for it."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        emit_prefetch(builder, builder.gep(data, [args[1]]))
        return context.get_dummy_value()

    return types.none(array, types.uint64), emit


def emit_prefetch(builder: Any, where: Any) -> None:
    """Emit it for a pointer of any type."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    name = "llvm.prefetch.p0i8"
    module = builder.module
    call = module.globals.get(name) or ir.Function(module, kind, name)
    near = [number(0), number(3), number(1)]  # to read, to every level, data
    builder.call(call, [builder.bitcast(where, byte), *near])
