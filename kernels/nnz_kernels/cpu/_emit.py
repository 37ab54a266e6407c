"""Writes LLVM IR that works on vectors of float32: what the intrinsics share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnz_kernels.cpu._simd import LANES

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(F32, LANES)

Values = Sequence[Any]


class Emitter:
    """Writes into a function; what it returns are values of that function."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def place(self, start: Any, *terms: tuple[Any, Any]) -> Any:
        """Return a pointer moved by the sum of products, counted in floats."""
        for index, step in terms:
            start = self.builder.gep(start, [self.builder.mul(index, step)])
        return start

    def load(self, pointer: Any, vector: int) -> Any:
        """Load vector number ``vector`` of those that start at a pointer."""
        return self.builder.load(self._at(pointer, vector), align=4)

    def store(self, value: Any, pointer: Any, vector: int) -> None:
        """Store vector number ``vector`` of those that start at a pointer."""
        self.builder.store(value, self._at(pointer, vector), align=4)

    def _at(self, pointer: Any, vector: int) -> Any:
        moved = self.builder.gep(pointer, [I64(vector * LANES)])
        return self.builder.bitcast(moved, VECTOR.as_pointer())

    def splat(self, value: Any) -> Any:
        """Return a vector with one value in every lane."""
        undefined = ir.Constant(VECTOR, ir.Undefined)
        one = self.builder.insert_element(undefined, value, I32(0))
        lanes = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
        return self.builder.shuffle_vector(one, undefined, lanes)

    def number(self, value: float) -> Any:
        """Return a vector with one constant in every lane."""
        return ir.Constant(VECTOR, [value] * LANES)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``a * b + c``, fused where the machine can."""
        return self._call("llvm.fmuladd", [a, b, c])

    def sqrt(self, a: Any) -> Any:
        """Return the square root."""
        return self._call("llvm.sqrt", [a])

    def _call(self, name: str, arguments: list[Any]) -> Any:
        name = f"{name}.v{LANES}f32"
        module = self.builder.module
        kind = ir.FunctionType(VECTOR, [VECTOR] * len(arguments))
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, arguments)

    def repeat(
        self, count: Any, start: Values, body: Callable[[Any, Values], Values]
    ) -> list[Any]:
        """Write a loop over ``0..count-1``, of which there is at least one.

        Args:
            count: How often.
            start: Values before the first turn.
            body: Writes one turn, given its number and the values before it; it returns
                those after it.

        Returns:
            The values after the last turn.
        """
        builder, before = self.builder, self.builder.block
        loop, after = (builder.append_basic_block(name) for name in ("loop", "after"))
        builder.branch(loop)
        builder.position_at_end(loop)
        turn = builder.phi(I64)
        turn.add_incoming(I64(0), before)
        held = [builder.phi(value.type) for value in start]
        new = list(body(turn, held))
        step = builder.add(turn, I64(1))
        turn.add_incoming(step, builder.block)
        for phi, first, value in zip(held, start, new, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed("<", step, count), loop, after)
        builder.position_at_end(after)
        return new

    def choose(
        self, count: Any, widest: int, body: Callable[[Sequence[int]], None]
    ) -> None:
        """Write one body for each number of vectors, and a switch between them.

        Args:
            count: Vectors, ``1..widest``.
            widest: The largest number.
            body: Writes the code for the vectors that it is given.
        """
        builder = self.builder
        done = builder.append_basic_block("done")
        choice = builder.switch(count, done)
        for width in range(1, widest + 1):
            block = builder.append_basic_block(f"width{width}")
            choice.add_case(I64(width), block)
            builder.position_at_end(block)
            body(range(width))
            builder.branch(done)
        builder.position_at_end(done)


def _type_address(typingctx: Any, array: Any) -> tuple[Any, Any]:
    """Type a call of ``address``."""
    pointer: Any = types.CPointer

    def write(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return pointer(array.dtype)(array), write


#: Returns the address of an array's data. Handing on an array itself makes numba count
#: references, atomically.
address: Any = intrinsic(_type_address)
