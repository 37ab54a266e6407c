"""LLVM intrinsics: one sparse row against a dense block, a register a run of columns.

*vectors* is a literal: how many whole registers of columns, starting at *column*, are
worked on. None means a part of one: *remaining* says how many of its lanes exist.

Numba's own loop over columns reads and writes ``out`` for every entry of the row, since
it cannot know that the arrays do not overlap.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnz_kernels.cpu._prefetch import emit_prefetch
from nnz_kernels.cpu._runtime import vector_floats

#: Bytes of a vector register.
VECTOR_BYTES = 4 * vector_floats()

#: The row of x of so many entries later, of this row or the next ones, is asked for.
_AHEAD = 32

_I32, _I64 = ir.IntType(32), ir.IntType(64)

_NAMES = (
    "indices", "data", "first", "last", "x", "out", "row", "column", "remaining",
)  # fmt: skip

_intrinsic: Any = intrinsic(prefer_literal=True)


@_intrinsic
def gather_rows(  # type: ignore[no-untyped-def]
    typingctx, indices, data, first, last, x, out, row, column, remaining, vectors, past
):
    """``out[row, column:] = sum of data[p] * x[indices[p], column:]``.

    With *past* whole registers are written past the cache, without reading what was
    there: they have to be aligned, and `settle` to be called before others read them.
    """
    given = indices, data, first, last, x, out, row, column, remaining, vectors, past
    emit = functools.partial(_emit, True, vectors.literal_value)
    return types.void(*given), emit


@_intrinsic
def scatter_row(  # type: ignore[no-untyped-def]
    typingctx, indices, data, first, last, x, out, row, column, remaining, vectors
):
    """``out[indices[p], column:] += data[p] * x[row, column:]`` for every p."""
    given = indices, data, first, last, x, out, row, column, remaining, vectors
    emit = functools.partial(_emit, False, vectors.literal_value)
    return types.void(*given), emit


@_intrinsic
def settle(typingctx):  # type: ignore[no-untyped-def]
    """Have what was written past the cache seen before what is written from now on."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), emit


def _emit(
    gather: bool, count: int, context: Any, builder: Any, sig: Any, args: Any
) -> Any:
    """Emit the loop over the entries ``first..last`` of a row."""
    row = _Row(count, context, builder, sig, args)
    before = builder.block
    # A scattered row is loaded once; gathered sums start from zero.
    start = [row.zeros] * row.count if gather else row.load("x", row.given["row"])
    ahead = row.ahead() if gather else None
    entries = builder.append_basic_block("entries")
    after = builder.append_basic_block("after")
    some = builder.icmp_signed("<", row.given["first"], row.given["last"])
    builder.cbranch(some, entries, after)

    builder.position_at_end(entries)
    p = builder.phi(_I64)
    sums = [builder.phi(row.vector) for _ in start]
    other = row.load("x" if gather else "out", row.index(p))
    if gather:
        row.fetch(row.index(builder.add(p, ahead)))
    factor = row.spread(row.element("data", p))
    if gather:
        new = row.fused(sums, [factor] * row.count, other)
    else:
        new = start
        row.store(row.index(p), row.fused(other, [factor] * row.count, start))
    following = builder.add(p, _I64(1))
    p.add_incoming(row.given["first"], before)
    p.add_incoming(following, entries)
    for total, first, value in zip(sums, start, new, strict=True):
        total.add_incoming(first, before)
        total.add_incoming(value, entries)
    more = builder.icmp_signed("<", following, row.given["last"])
    builder.cbranch(more, entries, after)

    builder.position_at_end(after)
    if gather:
        ends = [builder.phi(row.vector) for _ in new]
        for end, first, value in zip(ends, start, new, strict=True):
            end.add_incoming(first, before)
            end.add_incoming(value, entries)
        if row.mask is None:
            with builder.if_else(args[-1]) as (past, near):
                with past:
                    row.store(row.given["row"], ends, past=True)
                with near:
                    row.store(row.given["row"], ends)
        else:
            row.store(row.given["row"], ends)
    return context.get_dummy_value()


class _Row:
    """Pointers, widths and the few instructions that both intrinsics are made of."""

    def __init__(
        self, count: int, context: Any, builder: Any, sig: Any, args: Any
    ) -> None:
        kinds = dict(zip(_NAMES, sig.args, strict=False))
        self.builder, self.count = builder, count or 1
        self.given = dict(zip(_NAMES, args, strict=False))
        arrays = {
            name: context.make_array(kinds[name])(context, builder, self.given[name])
            for name in ("indices", "data", "x", "out")
        }
        self.pointer = {name: array.data for name, array in arrays.items()}
        self.entries = arrays["indices"].nitems
        self.width = builder.extract_value(arrays["x"].shape, 1)
        self.size = 4 if kinds["data"].dtype is types.float32 else 8
        self.lanes = VECTOR_BYTES // self.size
        scalar = self.pointer["data"].type.pointee
        self.vector = ir.VectorType(scalar, self.lanes)
        self.zeros = ir.Constant(self.vector, [0.0] * self.lanes)
        self.mask = None if count else self._mask()

    def _mask(self) -> Any:
        """Return ``lane < remaining`` for every lane."""
        kind = ir.VectorType(_I64, self.lanes)
        order = ir.Constant(kind, list(range(self.lanes)))
        end = self.spread(self.given["remaining"], kind)
        return self.builder.icmp_signed("<", order, end)

    def spread(self, scalar: Any, vector: Any = None) -> Any:
        """Return a register with the scalar in every lane."""
        empty = ir.Constant(vector or self.vector, ir.Undefined)
        first = self.builder.insert_element(empty, scalar, _I32(0))
        lanes = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, empty, lanes)

    def element(self, name: str, p: Any) -> Any:
        """Return entry p of a flat array."""
        return self.builder.load(self.builder.gep(self.pointer[name], [p]))

    def index(self, p: Any) -> Any:
        """Return column index p as 64 bits."""
        k = self.element("indices", p)
        return k if k.type == _I64 else self.builder.sext(k, _I64)

    def fused(
        self, sums: list[Any], factors: list[Any], values: list[Any]
    ) -> list[Any]:
        """Return ``sum + factor * value`` of each register, rounded twice."""
        parts = zip(sums, factors, values, strict=True)
        return [self.builder.fadd(s, self.builder.fmul(f, x)) for s, f, x in parts]

    def load(self, name: str, row: Any) -> list[Any]:
        """Return the registers of a row of a dense block."""
        return [self._load(at) for at in self._places(name, row)]

    def ahead(self) -> Any:
        """Return how far ahead the whole row may look, which the last rows may not."""
        end = self.builder.add(self.given["last"], _I64(_AHEAD))
        there = self.builder.icmp_signed("<=", end, self.entries)
        return self.builder.select(there, _I64(_AHEAD), _I64(0))

    def fetch(self, row: Any) -> None:
        """Ask for a row of x before it is needed."""
        for at in self._places("x", row):
            emit_prefetch(self.builder, at)

    def store(self, row: Any, values: list[Any], *, past: bool = False) -> None:
        """Write registers into a row of ``out``, on wish past the cache."""
        for at, value in zip(self._places("out", row), values, strict=True):
            if past:
                self._pass(value, at)
            else:
                self._store(value, at)

    def _places(self, name: str, row: Any) -> list[Any]:
        base = self.builder.add(self.builder.mul(row, self.width), self.given["column"])
        kind = self.vector.as_pointer()
        return [
            self.builder.bitcast(
                self.builder.gep(
                    self.pointer[name], [self.builder.add(base, _I64(v * self.lanes))]
                ),
                kind,
            )
            for v in range(self.count)
        ]

    def _load(self, at: Any) -> Any:
        if self.mask is None:
            return self.builder.load(at, align=self.size)
        arguments = [at.type, _I32, self.mask.type, self.vector]
        function = self._declare("load", ir.FunctionType(self.vector, arguments))
        return self.builder.call(function, [at, _I32(self.size), self.mask, self.zeros])

    def _pass(self, value: Any, at: Any) -> None:
        store = self.builder.store(value, at, align=VECTOR_BYTES)
        once = self.builder.module.add_metadata([_I32(1)])
        store.set_metadata("nontemporal", once)

    def _store(self, value: Any, at: Any) -> None:
        if self.mask is None:
            self.builder.store(value, at, align=self.size)
            return
        arguments = [self.vector, at.type, _I32, self.mask.type]
        function = self._declare("store", ir.FunctionType(ir.VoidType(), arguments))
        self.builder.call(function, [value, at, _I32(self.size), self.mask])

    def _declare(self, what: str, kind: Any) -> Any:
        """Declare a masked access by hand: llvmlite knows no vector intrinsics."""
        name = f"llvm.masked.{what}.v{self.lanes}f{8 * self.size}.p0"
        module = self.builder.module
        return module.globals.get(name) or ir.Function(module, kind, name)
