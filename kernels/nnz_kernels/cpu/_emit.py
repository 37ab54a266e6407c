"""Writes LLVM IR for micro-kernels: vectors of the machine's width, masks and clamps.

No loop that numba vectorises by itself keeps a tile of sums in registers, so the inner
loops of products and convolutions are written as IR and called from jitted loops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnz_kernels.cpu._simd import LANES

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


class Emitter:
    """Operations on vectors of ``lanes`` floats at the place of a builder."""

    def __init__(self, builder: Any, lanes: int = LANES) -> None:
        self.builder = builder
        self.lanes = lanes
        self.vector = ir.VectorType(F32, lanes)

    def load(self, pointer: Any, index: Any) -> Any:
        """Load one element."""
        return self.builder.load(self.builder.gep(pointer, [index]))

    def wide(self, pointer: Any, index: Any) -> Any:
        """Load a vector that starts at an element."""
        place = self.builder.gep(pointer, [index])
        place = self.builder.bitcast(place, self.vector.as_pointer())
        return self.builder.load(place, align=4)

    def store(self, value: Any, pointer: Any, index: Any) -> None:
        """Store a vector from an element on."""
        place = self.builder.gep(pointer, [index])
        place = self.builder.bitcast(place, self.vector.as_pointer())
        self.builder.store(value, place, align=4)

    def place(self, start: Any, *terms: tuple[Any, Any]) -> Any:
        """Return a pointer moved by the sum of products, counted in elements."""
        for index, step in terms:
            start = self.builder.gep(start, [self.builder.mul(index, step)])
        return start

    def splat(self, value: Any) -> Any:
        """Return a vector with one value in every lane."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(undefined, value, I32(0))
        lanes = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one, undefined, lanes)

    def number(self, value: float) -> Any:
        """Return a vector with one constant in every lane."""
        return ir.Constant(self.vector, [value] * self.lanes)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``a * b + c``, fused where the machine can."""
        return self._call("llvm.fmuladd", [a, b, c])

    def sqrt(self, a: Any) -> Any:
        """Return the square root."""
        return self._call("llvm.sqrt", [a])

    def _call(self, name: str, arguments: list[Any]) -> Any:
        name = f"{name}.v{self.lanes}f32"
        module = self.builder.module
        kind = ir.FunctionType(self.vector, [self.vector] * len(arguments))
        called = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(called, arguments)

    def clamp(self, value: Any, lo: Any, hi: Any) -> Any:
        """Bound a vector; NaN is neither below nor above, so it stays."""
        builder = self.builder
        for bound, test in ((lo, "<"), (hi, ">")):
            beyond = builder.fcmp_ordered(test, value, bound)
            value = builder.select(beyond, bound, value)
        return value

    def keep(self, value: Any, masks: Any, index: Any) -> Any:
        """Zero the lanes whose mask, an int32 of no or all bits, is 0."""
        builder, kind = self.builder, ir.VectorType(I32, self.lanes)
        place = builder.gep(masks, [index])
        bits = builder.load(builder.bitcast(place, kind.as_pointer()), align=4)
        kept = builder.and_(builder.bitcast(value, kind), bits)
        return builder.bitcast(kept, self.vector)

    def pick(self, low: Any, high: Any, first: int, step: int) -> Any:
        """Return every ``step``-th lane of two joined vectors from ``first`` on."""
        lanes = list(range(first, first + step * self.lanes, step))
        return self.shuffle(low, high, lanes)

    def shuffle(self, low: Any, high: Any, lanes: Sequence[int]) -> Any:
        """Return the named lanes of two joined vectors."""
        which = ir.Constant(ir.VectorType(I32, self.lanes), list(lanes))
        return self.builder.shuffle_vector(low, high, which)


def loop(builder: Any, count: Any, carried: Sequence[Any], body: Any) -> list[Any]:
    """Write a loop and return what it carried out.

    Args:
        builder: Stands where the loop goes; after it, behind the loop.
        count: How often, int64; may be 0.
        carried: Values that go from round to round.
        body: ``(number of the round, values) -> new values``; writes one round.
    """
    before = builder.block
    inside = builder.append_basic_block("round")
    after = builder.append_basic_block("behind")
    builder.cbranch(builder.icmp_signed(">", count, I64(0)), inside, after)
    builder.position_at_end(inside)
    number = builder.phi(I64)
    number.add_incoming(I64(0), before)
    values = [builder.phi(value.type) for value in carried]
    made = body(number, values)
    step = builder.add(number, I64(1))
    last = builder.block
    number.add_incoming(step, last)
    for phi, first, new in zip(values, carried, made, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(new, last)
    again = builder.cbranch(builder.icmp_signed("<", step, count), inside, after)
    again.set_metadata("llvm.loop", _as_it_is(builder.module))
    builder.position_at_end(after)
    results = []
    for first, new in zip(carried, made, strict=True):
        result = builder.phi(first.type)
        result.add_incoming(first, before)
        result.add_incoming(new, last)
        results.append(result)
    return results


def in_pairs(
    builder: Any, count: Any, carried: Sequence[Any], body: Any, least: int = 0
) -> list[Any]:
    """Write a `loop` whose rounds go two at a time, and the one that may be left.

    Worth it where there are many rounds, or as many each time: the branch before the
    last one is not foreseen. Fewer than ``least`` go one at a time.
    """

    def pair(number: Any, values: list[Any]) -> list[Any]:
        first = builder.shl(number, I64(1))
        return list(body(builder.add(first, I64(1)), body(first, values)))

    many = builder.icmp_signed(">=", count, I64(least))
    pairs = builder.select(many, builder.lshr(count, I64(1)), I64(0))
    values = loop(builder, pairs, carried, pair)
    done = builder.shl(pairs, I64(1))
    return loop(
        builder,
        builder.sub(count, done),
        values,
        lambda number, held: body(builder.add(done, number), held),
    )


def _as_it_is(module: Any) -> Any:
    """Return the mark of a loop that LLVM must not unroll.

    The loops are wide enough; a second one for what is left over would only add a
    branch that is guessed wrong. A loop's mark names itself first.
    """
    disable = module.add_metadata(
        [ir.MetaDataString(module, "llvm.loop.unroll.disable")]
    )
    mark = module.add_metadata(
        [disable, ir.MetaDataString(module, f"loop {len(module.metadata)}")]
    )
    mark.operands = (mark, disable)
    return mark


def function(builder: Any, name: str, kinds: Sequence[Any], write: Any) -> Any:
    """Return a function of its own in the builder's module, written at first use.

    Registers are then given out for one inner loop at a time.

    Args:
        builder: Says the module.
        name: Of the function; one name, one code.
        kinds: Types of its arguments; it returns nothing.
        write: ``(builder, arguments) -> None`` writes its body.
    """
    module = builder.module
    found = module.globals.get(name)
    if found is not None:
        return found
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    made.linkage = "internal"
    made.attributes.add("noinline")
    made.attributes.add("nounwind")
    body = ir.IRBuilder(made.append_basic_block("entry"))
    write(body, made.args)
    body.ret_void()
    return made


def unpack(
    builder: Any, tuples: Sequence[Any], names: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Return the members of tuples, each by its name."""
    return {
        name: builder.extract_value(given, i)
        for given, named in zip(tuples, names, strict=True)
        for i, name in enumerate(named)
    }


def call(builder: Any, name: str, values: dict[str, Any], write: Any) -> None:
    """Call a function of its own, see `function`, with named values.

    Args:
        builder: Stands where the call goes.
        name: Of the function.
        values: Its arguments.
        write: ``(builder, arguments by their names) -> None`` writes its body.
    """
    made = function(
        builder,
        name,
        [value.type for value in values.values()],
        lambda inner, given: write(inner, dict(zip(values, given, strict=True))),
    )
    builder.call(made, list(values.values()))


def where(
    builder: Any, condition: Any, values: Sequence[Any], change: Any
) -> list[Any]:
    """Write a branch: return what ``change()`` makes, or the values as they are."""
    before = builder.block
    changing = builder.append_basic_block("changing")
    after = builder.append_basic_block("changed")
    builder.cbranch(condition, changing, after)
    builder.position_at_end(changing)
    made = change()
    last = builder.block
    builder.branch(after)
    builder.position_at_end(after)
    found = []
    for value, new in zip(values, made, strict=True):
        phi = builder.phi(value.type)
        phi.add_incoming(value, before)
        phi.add_incoming(new, last)
        found.append(phi)
    return found


def cases(builder: Any, choice: Any, writers: Mapping[int, Callable[[], None]]) -> None:
    """Write a switch: what stands beside the value of ``choice``, or else nothing."""
    done = builder.append_basic_block("done")
    table = builder.switch(choice, done)
    for value, write in writers.items():
        block = builder.append_basic_block(f"case{value}")
        table.add_case(I64(value), block)
        builder.position_at_end(block)
        write()
        builder.branch(done)
    builder.position_at_end(done)


def switch(builder: Any, choice: Any, widest: int, body: Any) -> None:
    """Write ``body(width)`` for each width from 1 to ``widest`` and run one of them."""
    widths = range(1, widest + 1)
    cases(builder, choice, {width: partial(body, width) for width in widths})


def _type_address(typingctx: Any, array: Any) -> tuple[Any, Any]:
    """Type a call of ``address``."""
    pointer: Any = types.CPointer

    def write(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return pointer(array.dtype)(array), write


#: Returns the address of an array's data. Handing on an array itself makes numba count
#: references, atomically, which costs more than a short row of the product.
address: Any = intrinsic(_type_address)


def _type_forward(typingctx: Any, pointer: Any, places: Any) -> tuple[Any, Any]:
    """Type a call of ``forward``."""

    def write(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, places), write


#: ``forward(pointer, places)`` moves a pointer on by so many elements.
forward: Any = intrinsic(_type_forward)
