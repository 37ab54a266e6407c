"""The product of packed weights with shifted planes: the kernel of every convolution.

``Y[row, p] = clamp(bias[row] + sum_k W[row, k] X[p + offset[k]] + R[row, p], lo, hi)``
for a panel of pixels p and a run of rows. A *micro-kernel* holds a few rows times a few
vectors of pixels in registers; rows of one micro-kernel share their offsets. It is LLVM
IR, because no loop that numba vectorises by itself keeps its sums in registers.

All of the jitted code is in this file: numba's cache does not see changes elsewhere.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import FASTMATH, PARALLEL, SERIAL
from nnz_kernels.cpu._simd import LANES, WIDTHS

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)

# Literals of the kernel; a height that this machine does not use is never run, and gets
# the smallest code.
_WIDE_1 = WIDTHS[1]
_WIDE_2 = WIDTHS[2]
_WIDE_4 = WIDTHS[4]
_WIDE_8 = WIDTHS.get(8, 1)

#: Columns of the table of row runs: first output row, rows (at most the kernel's
#: height), first offset, number of offsets, first weight.
ROW, ROWS, OFFSET, COUNT, WEIGHT = range(5)

#: Columns of a task: runs from, to; first float of the panel in x and in y; vectors of
#: pixels; place in the masks; whether to zero the floats before and after the span.
FROM, TO, X_AT, Y_AT, VECTORS, MASK_AT, LEAD, TAIL = range(8)


#: Order of the places and addresses that ``_micro`` takes.
_PLACES = ("offsets", "weights", "bias", "x", "y", "residual", "masks")


class _Emitter:
    """Writes one micro-kernel of ``rows`` x ``vectors`` into a function."""

    def __init__(self, builder: Any, rows: int, vectors: int, arg: dict[str, Any]):
        self.builder, self.rows, self.vectors, self.arg = builder, rows, vectors, arg

    def at(self, pointer: Any, index: Any, vector: bool = False) -> Any:
        """Return a pointer to an element, as a vector's if asked."""
        pointer = self.builder.gep(pointer, [index])
        return (
            self.builder.bitcast(pointer, _VECTOR.as_pointer()) if vector else pointer
        )

    def splat(self, value: Any) -> Any:
        """Return a vector with one value in every lane."""
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        one = self.builder.insert_element(undefined, value, _I32(0))
        lanes = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
        return self.builder.shuffle_vector(one, undefined, lanes)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``a * b + c``, fused where the machine can."""
        name = f"llvm.fmuladd.v{LANES}f32"
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, [a, b, c])

    def emit(self) -> None:
        """Write the whole micro-kernel."""
        builder, arg = self.builder, self.arg
        biases = [
            self.splat(builder.load(self.at(arg["bias"], _I64(row))))
            for row in range(self.rows)
        ]
        before = builder.block
        loop = builder.append_basic_block("taps")
        after = builder.append_basic_block("store")
        some = builder.icmp_signed(">", arg["count"], _I64(0))
        builder.cbranch(some, loop, after)
        builder.position_at_end(loop)
        step, new = self._taps(before, loop, biases)
        more = builder.icmp_signed("<", step, arg["count"])
        builder.cbranch(more, loop, after)
        builder.position_at_end(after)
        totals = []
        for row in range(self.rows):
            for vector in range(self.vectors):
                total = builder.phi(_VECTOR)
                total.add_incoming(biases[row], before)
                total.add_incoming(new[row * self.vectors + vector], loop)
                totals.append(total)
        self._store(totals)

    def _taps(self, before: Any, loop: Any, biases: list[Any]) -> tuple[Any, ...]:
        """Write the loop over taps: load pixels once, use them for every row."""
        builder, arg = self.builder, self.arg
        tap = builder.phi(_I64)
        tap.add_incoming(_I64(0), before)
        sums = [builder.phi(_VECTOR) for _ in range(self.rows * self.vectors)]
        offset = builder.sext(builder.load(self.at(arg["offsets"], tap)), _I64)
        pixels = []
        for vector in range(self.vectors):
            place = builder.add(offset, _I64(vector * LANES))
            pixels.append(builder.load(self.at(arg["x"], place, True), align=4))
        first = builder.mul(tap, _I64(self.rows))
        new = []
        for row in range(self.rows):
            place = builder.add(first, _I64(row))
            weight = self.splat(builder.load(self.at(arg["weights"], place)))
            for vector in range(self.vectors):
                total = sums[row * self.vectors + vector]
                new.append(self.fma(weight, pixels[vector], total))
                total.add_incoming(biases[row], before)
                total.add_incoming(new[-1], loop)
        step = builder.add(tap, _I64(1))
        tap.add_incoming(step, loop)
        return step, new

    def _store(self, totals: list[Any]) -> None:
        """Write the epilogue, row by row; rows beyond the last are not stored."""
        builder, arg = self.builder, self.arg
        masks = [self._mask(vector) for vector in range(self.vectors)]
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        end = builder.append_basic_block("end")
        for row in range(self.rows):
            if row:
                stored = builder.append_basic_block(f"row{row}")
                there = builder.icmp_signed(">", arg["rows"], _I64(row))
                builder.cbranch(there, stored, end)
                builder.position_at_end(stored)
            start = builder.mul(arg["ldy"], _I64(row))
            values = totals[row * self.vectors : (row + 1) * self.vectors]
            values = self._add_residual(values, start)
            for vector, value in enumerate(values):
                place = builder.add(start, _I64(vector * LANES))
                kept = builder.select(masks[vector], self._clamp(value), zero)
                builder.store(kept, self.at(arg["y"], place, True), align=4)
        builder.branch(end)
        builder.position_at_end(end)

    def _mask(self, vector: int) -> Any:
        """Return the lanes of a vector that are pixels."""
        builder = self.builder
        bits = builder.load(self.at(self.arg["masks"], _I64(vector)))
        if LANES < 16:
            bits = builder.trunc(bits, ir.IntType(LANES))
        return builder.bitcast(bits, ir.VectorType(ir.IntType(1), LANES))

    def _add_residual(self, values: list[Any], start: Any) -> list[Any]:
        """Write the sum with the residual, skipped when there is none."""
        builder, before = self.builder, self.builder.block
        add = builder.append_basic_block("residual")
        after = builder.append_basic_block("summed")
        builder.cbranch(self.arg["has_residual"], add, after)
        builder.position_at_end(add)
        sums = []
        for vector, value in enumerate(values):
            place = builder.add(start, _I64(vector * LANES))
            pointer = self.at(self.arg["residual"], place, True)
            sums.append(builder.fadd(value, builder.load(pointer, align=4)))
        builder.branch(after)
        builder.position_at_end(after)
        results = []
        for value, total in zip(values, sums, strict=True):
            result = builder.phi(_VECTOR)
            result.add_incoming(value, before)
            result.add_incoming(total, add)
            results.append(result)
        return results

    def _clamp(self, value: Any) -> Any:
        """Bound a vector; NaN is neither below nor above, so it stays."""
        builder = self.builder
        for bound, test in ((self.arg["lo"], "<"), (self.arg["hi"], ">")):
            beyond = builder.fcmp_ordered(test, value, bound)
            value = builder.select(beyond, bound, value)
        return value


def _type_address(typingctx: Any, array: Any) -> tuple[Any, Any]:
    """Type a call of ``_address``."""
    pointer: Any = types.CPointer

    def write(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return pointer(array.dtype)(array), write


#: Returns the address of an array's data. Handing on an array itself makes numba count
#: references, atomically, which costs more than a short row of the product.
_address: Any = intrinsic(_type_address)


def _type_micro(
    typingctx: Any, height: Any, widest: Any, vectors: Any, run: Any, clamp: Any,
    ldy: Any, places: Any, addresses: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """Type a call of ``_micro``; the writer of its code comes with the types."""
    kinds = (height, widest, vectors, run, clamp, ldy, places, addresses)
    return types.void(*kinds), _write_micro


def _write_micro(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Write a switch over the number of vectors, with a micro-kernel for each."""
    arg = {"ldy": args[5]}
    places = {name: builder.extract_value(args[6], i) for i, name in enumerate(_PLACES)}
    for i, name in enumerate(_PLACES):
        start = builder.extract_value(args[7], i)
        arg[name] = builder.gep(start, [places[name]])
    arg["rows"], arg["count"] = (builder.extract_value(args[3], i) for i in (0, 1))
    arg["has_residual"] = builder.icmp_signed(">=", places["residual"], _I64(0))
    splat = _Emitter(builder, 1, 1, arg).splat
    arg["lo"], arg["hi"] = (splat(builder.extract_value(args[4], i)) for i in (0, 1))
    done = builder.append_basic_block("done")
    choice = builder.switch(args[2], done)
    for width in range(1, sig.args[1].literal_value + 1):
        block = builder.append_basic_block(f"width{width}")
        choice.add_case(_I64(width), block)
        builder.position_at_end(block)
        _Emitter(builder, sig.args[0].literal_value, width, arg).emit()
        builder.branch(done)
    builder.position_at_end(done)
    return context.get_dummy_value()


#: Runs the micro-kernel of ``height`` (literal) rows and ``vectors`` (at most the
#: literal ``widest``) vectors: ``run`` is (rows, count), ``clamp`` is (lo, hi); places
#: and addresses are those of ``_PLACES``, place -1 of the residual meaning none.
_micro: Any = intrinsic(prefer_literal=True)(_type_micro)


@numba.njit(fastmath=FASTMATH, **SERIAL)
def _product(  # type: ignore[no-untyped-def]
    height, tasks, first, last, table, offsets, weights, bias, x, y, ldy, residual,
    masks, lo, hi,
):  # fmt: skip
    """Compute the tasks first..last-1; an empty residual means none."""
    clamp = (lo, hi)
    addresses = (
        _address(offsets), _address(weights), _address(bias), _address(x), _address(y),
        _address(residual), _address(masks),
    )  # fmt: skip
    added = residual.size > 0
    for t in range(first, last):
        vectors = tasks[t, VECTORS]
        for r in range(tasks[t, FROM], tasks[t, TO]):
            row, rows = table[r, ROW], table[r, ROWS]
            place = row * ldy + tasks[t, Y_AT]
            run = (rows, table[r, COUNT])
            places = (
                table[r, OFFSET], table[r, WEIGHT], r * height, tasks[t, X_AT], place,
                place if added else -1, tasks[t, MASK_AT],
            )  # fmt: skip
            if height == 4:
                _micro(4, _WIDE_4, vectors, run, clamp, ldy, places, addresses)
            elif height == 1:
                _micro(1, _WIDE_1, vectors, run, clamp, ldy, places, addresses)
            elif height == 8:
                _micro(8, _WIDE_8, vectors, run, clamp, ldy, places, addresses)
            else:
                _micro(2, _WIDE_2, vectors, run, clamp, ldy, places, addresses)
            for channel in range(row, row + rows):
                start = channel * ldy
                for p in range(start, start + tasks[t, LEAD]):
                    y[p] = 0.0
                for p in range(start + tasks[t, TAIL], start + ldy):
                    y[p] = 0.0


@numba.njit(**PARALLEL)
def _product_threads(  # type: ignore[no-untyped-def]
    chunks, height, tasks, table, offsets, weights, bias, x, y, ldy, residual, masks,
    lo, hi,
):  # fmt: skip
    """Share the tasks out over threads."""
    count = tasks.shape[0]
    for c in numba.prange(chunks):
        _product(
            height, tasks, count * c // chunks, count * (c + 1) // chunks, table,
            offsets, weights, bias, x, y, ldy, residual, masks, lo, hi,
        )  # fmt: skip


_F, _I = types.float32[::1], types.int64
_TABLES = (types.int64[:, ::1], types.int32[::1], _F, _F, _F, _F, _I, _F)
_ENDS = (types.uint16[::1], types.float32, types.float32)

ENTRIES = (
    Entry(_product, ((_I, types.int64[:, ::1], _I, _I, *_TABLES, *_ENDS),)),
    Entry(_product_threads, ((_I, _I, types.int64[:, ::1], *_TABLES, *_ENDS),)),
)
