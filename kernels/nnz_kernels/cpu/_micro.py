"""Intrinsics of the product: one tile of rows x vectors, and copying a panel.

A *tap* of a tile is one column of its weights. Its pixels lie ``table[column]`` floats
away, in the planes themselves (`SPREAD`), or ``column * pitch`` away, in a packed panel
(`PACKED`). Where every column is kept, the next one is simply ``pitch`` further
(`DENSE`): fewer instructions, which counts where another thread shares the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnz_kernels.cpu._emit import (
    F32,
    I64,
    Emitter,
    call,
    cases,
    in_pairs,
    loop,
    switch,
    unpack,
    where,
)
from nnz_kernels.cpu._simd import LANES, TALLEST, WIDTHS

#: Columns of the table of runs: first output row, rows (at most the tile's height),
#: first of its columns, their number, first weight, what to add to its columns, and
#: which part of a sum it is.
ROW, ROWS, TAP, COUNT, WEIGHT, BASE, PART = range(7)
_FIELDS = 7

#: Bits of a part: others follow it, others came before it.
UNFINISHED, CONTINUED = 1, 2

#: Where the pixels of a column are.
SPREAD, PACKED, DENSE = range(3)

#: Sums that hide the latency of a multiply-add, four cycles of two each.
_SUMS = 8

#: Columns of a run from which on they go in pairs.
_LONG = 96

#: Order of the pointers and of the numbers that ``group`` takes.
POINTERS = (
    "runs", "columns", "table", "weights", "bias", "x", "y", "residual", "masks",
)  # fmt: skip
NUMBERS = ("first", "last", "panels", "x_step", "ldy", "added", "pitch")


class _Group:
    """Writes the tiles of some runs and of some panels of ``width`` vectors.

    A multiply-add waits for the one before it in the same sum. Where a tile has too few
    sums to fill that time, several runs go side by side, each over its own columns, and
    what one has more than the shortest comes after.
    """

    def __init__(
        self, builder: Any, shape: tuple[int, int], way: int, arg: dict[str, Any]
    ):
        self.emit = Emitter(builder)
        self.builder, self.arg, self.way = builder, arg, way
        self.height, self.width = shape
        # In a packed panel it is known here, which saves a register.
        pitches = {SPREAD: I64(0), PACKED: I64(self.width * LANES)}
        self.pitch = pitches.get(way, arg["pitch"])
        self.places = [(r, v) for r in range(self.height) for v in range(self.width)]
        self.chains = max(1, min(4, _SUMS // len(self.places)))

    def write(self) -> None:
        """Write the loop over runs, several at once, and over those that are left."""
        builder, arg, chains = self.builder, self.arg, self.chains
        arg["added"] = builder.icmp_signed("!=", arg["added"], I64(0))
        count = builder.sub(arg["last"], arg["first"])
        rounds = builder.sdiv(count, I64(chains))

        def several(number: Any, _: list[Any]) -> list[Any]:
            first = builder.add(arg["first"], builder.mul(number, I64(chains)))
            runs = [self._run(builder.add(first, I64(i))) for i in range(chains)]
            loop(builder, arg["panels"], [], lambda p, _: self._panel(p, runs))
            return []

        loop(builder, rounds, [], several)
        if chains > 1:
            done = builder.mul(rounds, I64(chains))

            def one(number: Any, _: list[Any]) -> list[Any]:
                number = builder.add(builder.add(arg["first"], done), number)
                runs = [self._run(number)]
                loop(builder, arg["panels"], [], lambda p, _: self._panel(p, runs))
                return []

            loop(builder, builder.sub(count, done), [], one)

    def _run(self, number: Any) -> dict[str, Any]:
        """Read one run."""
        builder, arg, emit = self.builder, self.arg, self.emit
        at: dict[str, Any] = {}
        run = builder.gep(arg["runs"], [builder.mul(number, I64(_FIELDS))])
        row, at["rows"], tap, at["count"], weight, base, part = (
            builder.sext(emit.load(run, I64(field)), I64) for field in range(_FIELDS)
        )
        at["columns"] = builder.gep(arg["columns"], [tap])
        at["weights"] = builder.gep(arg["weights"], [weight])
        at["bias"] = builder.gep(arg["bias"], [builder.mul(number, I64(self.height))])
        start = builder.mul(row, arg["ldy"])
        at["y"] = builder.gep(arg["y"], [start])
        at["table"] = builder.gep(arg["table"], [base])
        at["x"] = builder.gep(arg["x"], [builder.mul(base, self.pitch)])
        # A sum in several parts goes on from what the part before has stored; the last
        # part clamps.
        later = self._has(part, CONTINUED)
        residual = builder.gep(arg["residual"], [start])
        at["residual"] = builder.select(later, at["y"], residual)
        at["added"] = builder.or_(later, arg["added"])
        unfinished = self._has(part, UNFINISHED)
        for name, none in (("lo", float("-inf")), ("hi", float("inf"))):
            at[name] = builder.select(unfinished, ir.Constant(F32, none), arg[name])
        return at

    def _has(self, part: Any, bit: int) -> Any:
        return self.builder.trunc(self.builder.lshr(part, I64(bit - 1)), ir.IntType(1))

    def _panel(self, number: Any, runs: list[dict[str, Any]]) -> list[Any]:
        """Write a tile of each run: bias and residual, the loop over taps, a store."""
        builder, arg = self.builder, self.arg
        shift = builder.mul(number, I64(self.width * LANES))
        ahead = builder.mul(number, arg["x_step"])
        sums = []
        for at in runs:
            at["pixels"] = builder.gep(at["x"], [ahead])
            sums += self._start(at, shift)
        size = len(self.places)
        least = runs[0]["count"]
        for at in runs[1:]:
            fewer = builder.icmp_signed("<", at["count"], least)
            least = builder.select(fewer, at["count"], least)

        def together(tap: Any, held: list[Any]) -> list[Any]:
            made = []
            for i, at in enumerate(runs):
                made += self._tap(at, tap, held[i * size : (i + 1) * size])
            return made

        if self.chains == 1:
            fewest = 0 if self.way == DENSE else _LONG
            sums = in_pairs(builder, least, sums, together, fewest)
        else:
            sums = loop(builder, least, sums, together)
        for i, at in enumerate(runs):
            mine = sums[i * size : (i + 1) * size]
            if len(runs) > 1:
                rest = builder.sub(at["count"], least)
                mine = loop(
                    builder,
                    rest,
                    mine,
                    lambda tap, held, at=at: self._tap(
                        at, builder.add(least, tap), held
                    ),
                )
            self._finish(at, shift, mine)
        return []

    def _start(self, at: dict[str, Any], shift: Any) -> list[Any]:
        builder, emit = self.builder, self.emit
        biases = [
            emit.splat(emit.load(at["bias"], I64(row))) for row in range(self.height)
        ]
        starts = [biases[row] for row, _ in self.places]

        def add() -> list[Any]:
            residual = builder.gep(at["residual"], [shift])
            added = []
            last = builder.sub(at["rows"], I64(1))
            for row, vector in self.places:
                # Rows beyond the last are read from it: nothing may be behind it.
                below = builder.icmp_signed("<", I64(row), last)
                line = builder.select(below, I64(row), last)
                place = builder.mul(line, self.arg["ldy"])
                value = emit.wide(residual, builder.add(place, I64(vector * LANES)))
                added.append(builder.fadd(biases[row], value))
            return added

        return where(builder, at["added"], starts, add)

    def _tap(self, at: dict[str, Any], tap: Any, sums: list[Any]) -> list[Any]:
        """Load the pixels of one tap once, use them for every row."""
        builder, emit = self.builder, self.emit
        offset = self._offset(at, tap)
        pixels = [
            emit.wide(at["pixels"], builder.add(offset, I64(vector * LANES)))
            for vector in range(self.width)
        ]
        first = builder.mul(tap, I64(self.height))
        weights = []
        for row in range(self.height):
            weight = emit.load(at["weights"], builder.add(first, I64(row)))
            weights.append(emit.splat(weight))
        return [
            emit.fma(weights[row], pixels[vector], total)
            for (row, vector), total in zip(self.places, sums, strict=True)
        ]

    def _offset(self, at: dict[str, Any], tap: Any) -> Any:
        builder, emit = self.builder, self.emit
        if self.way == DENSE:
            return builder.mul(tap, self.pitch)
        column = builder.zext(emit.load(at["columns"], tap), I64)
        if self.way == PACKED:
            return builder.mul(column, self.pitch)
        return builder.sext(emit.load(at["table"], column), I64)

    def _finish(self, at: dict[str, Any], shift: Any, sums: list[Any]) -> None:
        """Clamp, mask and store, row by row; rows beyond the last are not stored."""
        builder, emit = self.builder, self.emit
        y = builder.gep(at["y"], [shift])
        masks = builder.gep(self.arg["masks"], [shift])
        lo, hi = emit.splat(at["lo"]), emit.splat(at["hi"])
        end = builder.append_basic_block("end")
        for row in range(self.height):
            if row:
                stored = builder.append_basic_block(f"row{row}")
                there = builder.icmp_signed(">", at["rows"], I64(row))
                builder.cbranch(there, stored, end)
                builder.position_at_end(stored)
            start = builder.mul(self.arg["ldy"], I64(row))
            for vector in range(self.width):
                value = emit.clamp(sums[row * self.width + vector], lo, hi)
                value = emit.keep(value, masks, I64(vector * LANES))
                emit.store(value, y, builder.add(start, I64(vector * LANES)))
        builder.branch(end)
        builder.position_at_end(end)


def _type_group(
    typingctx: Any, shape: Any, clamp: Any, numbers: Any, pointers: Any
) -> tuple[Any, Any]:
    """Type a call of ``group``; the writer of its code comes with the types."""
    return types.void(shape, clamp, numbers, pointers), _write_group


def _write_group(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Write a switch over heights, ways and widths, with a call for each."""
    values = unpack(builder, args[1:], (("lo", "hi"), NUMBERS, POINTERS))
    height, way, width = (builder.extract_value(args[0], i) for i in range(3))
    writers = {
        4 * tall + kind: partial(
            switch, builder, width, widest, _tiles(builder, tall, kind, values)
        )
        for tall, widest in WIDTHS.items()
        # Few rows are no matter for dense weights.
        for kind in ((SPREAD, PACKED, DENSE) if tall == TALLEST else (SPREAD, PACKED))
    }
    cases(builder, builder.add(builder.mul(height, I64(4)), way), writers)
    return context.get_dummy_value()


def _tiles(builder: Any, height: int, way: int, values: dict[str, Any]) -> Any:
    def body(width: int) -> None:
        call(
            builder,
            f"nnz_group_{height}x{width}_{('spread', 'packed', 'dense')[way]}",
            values,
            lambda inner, arg: _Group(inner, (height, width), way, arg).write(),
        )

    return body


#: ``group((height, way, width), clamp, numbers, pointers)`` computes the tiles of some
#: runs and of some panels next to each other: the height of the runs (a key of
#: ``WIDTHS``), ``SPREAD``, ``PACKED`` or, of the tallest, ``DENSE``, and the vectors of
#: each panel; ``clamp`` is (lo, hi); numbers and pointers are those of ``NUMBERS`` and
#: ``POINTERS``. For other shapes it does nothing.
group: Any = intrinsic(_type_group)


def _type_copy(
    typingctx: Any, widest: Any, vectors: Any, x: Any, table: Any, count: Any, out: Any
) -> tuple[Any, Any]:
    """Type a call of ``copy_panel``."""
    return types.void(widest, vectors, x, table, count, out), _write_copy


def _write_copy(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _, vectors, x, table, count, out = args
    widest, emit = sig.args[0].literal_value, Emitter(builder)

    def body(width: int) -> None:
        def one(number: Any, _: list[Any]) -> list[Any]:
            start = builder.sext(emit.load(table, number), I64)
            to = builder.mul(number, I64(width * LANES))
            for vector in range(width):
                shift = I64(vector * LANES)
                value = emit.wide(x, builder.add(start, shift))
                emit.store(value, out, builder.add(to, shift))
            return []

        loop(builder, count, [], one)

    switch(builder, vectors, widest, body)
    return context.get_dummy_value()


#: ``copy_panel(widest, vectors, x, table, count, out)`` copies ``vectors`` vectors, at
#: most ``widest`` (literal), from each of ``count`` places of ``table``.
copy_panel: Any = intrinsic(prefer_literal=True)(_type_copy)


#: Runs that ``column_sums`` adds up side by side, so that multiply-adds need not wait
#: for each other though every sum keeps its order.
CHAINS = 4


def _type_column_sums(
    typingctx: Any, height: Any, taps: Any, places: Any, pointers: Any
) -> tuple[Any, Any]:
    """Type a call of ``column_sums``."""
    return types.void(height, taps, places, pointers), _write_column_sums


def _write_column_sums(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Write a switch over heights."""
    writers = {tall: partial(_sums_of, builder, tall, args[1:]) for tall in WIDTHS}
    cases(builder, args[0], writers)
    return context.get_dummy_value()


def _sums_of(builder: Any, height: int, args: Sequence[Any]) -> None:
    taps, places, pointers = args
    emit = Emitter(builder, height)
    columns, weights, pixels, sums = (
        builder.extract_value(pointers, i) for i in range(4)
    )
    chains = range(len(taps.type.elements))
    counts = [builder.extract_value(taps, chain) for chain in chains]
    starts = [
        [
            builder.extract_value(builder.extract_value(places, chain), i)
            for i in range(3)
        ]
        for chain in chains
    ]

    def add(chain: int, tap: Any, total: Any) -> Any:
        column_at, weight_at, _ = starts[chain]
        column = builder.zext(emit.load(columns, builder.add(column_at, tap)), I64)
        pixel = emit.splat(emit.load(pixels, column))
        place = builder.add(weight_at, builder.mul(tap, I64(height)))
        return emit.fma(emit.wide(weights, place), pixel, total)

    least = counts[0]
    for count in counts[1:]:
        least = builder.select(builder.icmp_signed("<", count, least), count, least)
    totals = loop(
        builder,
        least,
        [emit.wide(sums, start[2]) for start in starts],
        lambda tap, held: [add(i, tap, total) for i, total in enumerate(held)],
    )
    for chain, total in enumerate(totals):
        rest = builder.sub(counts[chain], least)
        (whole,) = loop(
            builder,
            rest,
            [total],
            lambda tap, held, i=chain: [add(i, builder.add(least, tap), held[0])],
        )
        emit.store(whole, sums, starts[chain][2])


#: ``column_sums(height, taps, places, pointers)`` adds ``height`` weights (a key of
#: ``WIDTHS``) of each tap times one pixel to the sums of some runs. Of each run
#: ``taps`` are how many, ``places`` the first in the columns, in the weights and in the
#: sums; pointers are columns, weights, pixels and sums.
column_sums: Any = intrinsic(_type_column_sums)
