"""Intrinsics of F(2x2, 3x3): what goes into the sixteen products, and what comes out.

A tile of 2 x 2 outputs needs 4 x 4 pixels ``d``. With the matrices of Lavin and Gray,
"Fast algorithms for convolutional neural networks" (2016), section 4.1, its outputs are
``A' [(G g G') * (B' d B)] A``. Vectors run over tiles side by side.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from nnz_kernels.cpu._emit import I64, Emitter, call, loop, unpack, where

#: Products of one layer: one for each of the 4 x 4 places in a tile.
PLACES = 16

#: What is added up: (first, second, subtract) of each row of the matrix B'.
_INPUT = ((0, 2, True), (1, 2, False), (2, 1, True), (1, 3, True))

#: Order of the pointers and of the numbers that ``tiles_in`` takes.
IN_POINTERS = ("row0", "row1", "row2", "row3", "out")
IN_NUMBERS = ("tiles", "step")

#: Order of the pointers and of the numbers that ``tiles_out`` takes.
OUT_POINTERS = ("sums", "upper", "lower", "residual")
OUT_NUMBERS = ("tiles", "step", "pitch", "added")
CLAMP = ("bias", "lo", "hi")


class _Tiles:
    """Writes the loop over the vectors of a row of tiles.

    The last vector ends at the last tile; where a vector is longer than the row, it
    goes on behind it.
    """

    def __init__(self, builder: Any, lanes: int, arg: dict[str, Any]):
        self.emit = Emitter(builder, lanes)
        self.builder, self.arg, self.lanes = builder, arg, lanes

    def _each(self, body: Any) -> None:
        """Write ``body(first tile, float of its first pixel)`` for each vector."""
        builder, lanes = self.builder, I64(self.lanes)
        tiles = self.arg["tiles"]
        last = builder.sub(tiles, lanes)
        short = builder.icmp_signed("<", last, I64(0))
        last = builder.select(short, I64(0), last)
        count = builder.sdiv(builder.add(tiles, I64(self.lanes - 1)), lanes)

        def vector(number: Any, _: list[Any]) -> list[Any]:
            tile = builder.mul(number, lanes)
            inside = builder.icmp_signed("<", tile, last)
            tile = builder.select(inside, tile, last)
            body(tile, builder.mul(tile, I64(2)))
            return []

        loop(builder, count, [], vector)

    def write_in(self) -> None:
        """Write the sums of pixels."""
        self._each(self._vector_in)

    def _vector_in(self, tile: Any, pixel: Any) -> None:
        builder, arg, emit = self.builder, self.arg, self.emit
        # Two vectors side by side hold the first two columns of all tiles; two that
        # start two pixels on hold the others.
        starts = [
            builder.add(pixel, I64(shift))
            for shift in (0, self.lanes, 2, 2 + self.lanes)
        ]
        rows = [
            [emit.wide(arg[f"row{row}"], start) for start in starts] for row in range(4)
        ]
        for i, (a, b, minus) in enumerate(_INPUT):
            low, high, third, fourth = (
                self._sum(rows[a][k], rows[b][k], minus) for k in range(4)
            )
            columns = [
                emit.pick(low, high, 0, 2),
                emit.pick(low, high, 1, 2),
                emit.pick(third, fourth, 0, 2),
                emit.pick(third, fourth, 1, 2),
            ]
            for j, (c, d, less) in enumerate(_INPUT):
                value = self._sum(columns[c], columns[d], less)
                place = builder.mul(arg["step"], I64(4 * i + j))
                emit.store(value, arg["out"], builder.add(place, tile))

    def _sum(self, a: Any, b: Any, minus: bool) -> Any:
        return self.builder.fsub(a, b) if minus else self.builder.fadd(a, b)

    def write_out(self) -> None:
        """Write two rows of pixels for each row of tiles."""
        arg, builder = self.arg, self.builder
        arg["added"] = builder.icmp_signed("!=", arg["added"], I64(0))
        for name in CLAMP:
            arg[name] = self.emit.splat(arg[name])
        self._each(self._vector_out)

    def _vector_out(self, tile: Any, pixel: Any) -> None:
        builder, arg, emit = self.builder, self.arg, self.emit
        upper, lower = [], []
        for j in range(4):
            m = [
                emit.wide(
                    arg["sums"],
                    builder.add(builder.mul(arg["step"], I64(4 * i + j)), tile),
                )
                for i in range(4)
            ]
            upper.append(builder.fadd(builder.fadd(m[0], m[1]), m[2]))
            lower.append(builder.fsub(builder.fsub(m[1], m[2]), m[3]))
        values = [value for s in (upper, lower) for value in self._pixels(s)]
        places = [builder.add(pixel, I64(half * self.lanes)) for half in (0, 1)]
        values = self._residual(values, places)
        for i, value in enumerate(values):
            value = emit.clamp(value, arg["lo"], arg["hi"])
            emit.store(value, arg[OUT_POINTERS[1 + i // 2]], places[i % 2])

    def _pixels(self, s: list[Any]) -> list[Any]:
        """Return the even and the odd pixels of a row, one after the other in turn."""
        builder, lanes = self.builder, self.lanes
        even = builder.fadd(builder.fadd(s[0], s[1]), s[2])
        odd = builder.fsub(builder.fsub(s[1], s[2]), s[3])
        even, odd = (builder.fadd(self.arg["bias"], value) for value in (even, odd))
        turns = [lane // 2 + lanes * (lane % 2) for lane in range(2 * lanes)]
        return [
            self.emit.shuffle(even, odd, turns[:lanes]),
            self.emit.shuffle(even, odd, turns[lanes:]),
        ]

    def _residual(self, values: list[Any], places: list[Any]) -> list[Any]:
        builder, arg, emit = self.builder, self.arg, self.emit

        def add() -> list[Any]:
            below = builder.gep(arg["residual"], [arg["pitch"]])
            return [
                builder.fadd(value, emit.wide(row, place))
                for row, half in ((arg["residual"], 0), (below, 2))
                for value, place in zip(values[half : half + 2], places, strict=True)
            ]

        return where(builder, arg["added"], values, add)


def _type_in(
    typingctx: Any, lanes: Any, numbers: Any, pointers: Any
) -> tuple[Any, Any]:
    """Type a call of ``tiles_in``."""

    def write(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        width = sig.args[0].literal_value
        values = unpack(builder, args[1:], (IN_NUMBERS, IN_POINTERS))
        call(
            builder,
            f"nnz_tiles_in_{width}",
            values,
            lambda inner, given: _Tiles(inner, width, given).write_in(),
        )
        return context.get_dummy_value()

    return types.void(lanes, numbers, pointers), write


#: ``tiles_in(lanes, numbers, pointers)`` takes four rows of pixels to the sixteen
#: inputs of a row of tiles, each ``step`` floats from the one before. Numbers and
#: pointers are those of ``IN_NUMBERS`` and ``IN_POINTERS``; ``lanes`` is literal.
tiles_in: Any = intrinsic(prefer_literal=True)(_type_in)


def _type_out(
    typingctx: Any, lanes: Any, clamp: Any, numbers: Any, pointers: Any
) -> tuple[Any, Any]:
    """Type a call of ``tiles_out``."""

    def write(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        width = sig.args[0].literal_value
        values = unpack(builder, args[1:], (CLAMP, OUT_NUMBERS, OUT_POINTERS))
        call(
            builder,
            f"nnz_tiles_out_{width}",
            values,
            lambda inner, given: _Tiles(inner, width, given).write_out(),
        )
        return context.get_dummy_value()

    return types.void(lanes, clamp, numbers, pointers), write


#: ``tiles_out(lanes, clamp, numbers, pointers)`` takes the sixteen sums of a row of
#: tiles, each ``step`` floats from the one before, to two rows of pixels, to which two
#: rows of the residual, ``pitch`` apart, are added where ``added`` is not 0. Numbers
#: and pointers are those of ``OUT_NUMBERS`` and ``OUT_POINTERS``, ``clamp`` is (bias,
#: lo, hi); ``lanes`` is literal.
tiles_out: Any = intrinsic(prefer_literal=True)(_type_out)
