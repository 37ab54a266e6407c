"""Intrinsics of what works on one plane at a time: depthwise convolution and pooling.

With stride 1 and rows of one pitch a plane is *flat*: vectors run over all of its rows
and the borders between them, and a mask zeroes these. Otherwise vectors run along a
row; the last one ends at the row's last pixel, so that nothing beyond it is written.
Two rows at once share what they read: for a 3x3 kernel of stride 1 twelve loads then
serve eighteen multiply-adds. With stride 2 the even and the odd pixels are picked out
of two vectors side by side.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from numba import types
from numba.extending import intrinsic

from nnz_kernels.cpu._emit import I64, Emitter, call, cases, loop, unpack, where
from nnz_kernels.cpu._simd import LANES

#: Lanes of the narrowest vector, and so pixels of the shortest row of a kernel, and of
#: one for rows of fewer pixels than a register has.
SHORTEST = 4
HALF = max(SHORTEST, LANES // 2)

#: Lanes of a vector whose halves are shuffled apart.
_HALVED = 8

#: Order of the pointers and of the numbers that ``depthwise_plane`` takes.
POINTERS = ("x", "y", "residual", "weights", "table", "masks")
NUMBERS = ("x_pitch", "y_pitch", "rows", "width", "taps", "added")
CLAMP = ("bias", "lo", "hi")


class _Plane:
    """Writes the loops over rows and vectors; ``square`` for a 3x3 kernel.

    Stride 0 stands for a flat plane, a single row that is as long as the plane.
    """

    def __init__(
        self, builder: Any, lanes: int, stride: int, square: bool, arg: dict[str, Any]
    ):
        self.emit = Emitter(builder, lanes)
        self.builder, self.arg = builder, arg
        self.lanes, self.stride, self.square = lanes, max(1, stride), square
        self.flat = stride == 0
        self.weights: list[Any] = []

    def write(self) -> None:
        """Write pairs of rows, then the row that may be left."""
        builder, arg, emit = self.builder, self.arg, self.emit
        arg["added"] = builder.icmp_signed("!=", arg["added"], I64(0))
        for name in CLAMP:
            arg[name] = emit.splat(arg[name])
        together = 1
        if self.square:
            together = 1 if self.flat else 2
            self.weights = [
                emit.splat(emit.load(arg["weights"], I64(tap))) for tap in range(9)
            ]
        pairs = builder.sdiv(arg["rows"], I64(together))
        self._rows(I64(0), pairs, together)
        done = builder.mul(pairs, I64(together))
        self._rows(done, builder.sub(arg["rows"], done), 1)

    def _rows(self, first: Any, count: Any, together: int) -> None:
        builder, arg = self.builder, self.arg
        vectors = builder.sdiv(
            builder.add(arg["width"], I64(self.lanes - 1)), I64(self.lanes)
        )
        last = builder.sub(arg["width"], I64(self.lanes))

        def one(number: Any, _: list[Any]) -> list[Any]:
            row = builder.add(first, builder.mul(number, I64(together)))

            def vector(at: Any, _: list[Any]) -> list[Any]:
                column = builder.mul(at, I64(self.lanes))
                inside = builder.icmp_signed("<", column, last)
                self._vector(row, builder.select(inside, column, last), together)
                return []

            loop(builder, vectors, [], vector)
            return []

        loop(builder, count, [], one)

    def _vector(self, row: Any, column: Any, together: int) -> None:
        """Write one vector of each of the rows that are done together."""
        builder, arg, emit = self.builder, self.arg, self.emit
        step = builder.mul(arg["y_pitch"], row)
        places = [
            builder.add(builder.add(step, column), builder.mul(arg["y_pitch"], I64(r)))
            for r in range(together)
        ]
        top = builder.mul(builder.mul(row, I64(self.stride)), arg["x_pitch"])
        start = builder.add(top, builder.mul(column, I64(self.stride)))
        sums = self._residual(places)
        sums = self._square(start, sums) if self.square else self._taps(start, sums)
        for place, total in zip(places, sums, strict=True):
            value = self._ordered(emit.clamp(total, arg["lo"], arg["hi"]))
            if self.flat:
                value = emit.keep(value, arg["masks"], place)
            emit.store(value, arg["y"], place)

    def _residual(self, places: list[Any]) -> list[Any]:
        """Start with the bias, and the residual where there is one."""
        builder, arg, emit = self.builder, self.arg, self.emit

        def add() -> list[Any]:
            values = [emit.wide(arg["residual"], place) for place in places]
            return [builder.fadd(arg["bias"], self._ordered(v)) for v in values]

        return where(builder, arg["added"], [arg["bias"]] * len(places), add)

    def _square(self, start: Any, sums: list[Any]) -> list[Any]:
        """Write nine taps; every row of pixels is read once for all sums."""
        builder = self.builder
        lines = (len(sums) - 1) * self.stride + 3
        for line in range(lines):
            at = builder.add(start, builder.mul(self.arg["x_pitch"], I64(line)))
            pixels = self._line(at)
            for row in range(len(sums)):
                ky = line - row * self.stride
                if 0 <= ky < 3:
                    for kx in range(3):
                        weight = self.weights[3 * ky + kx]
                        sums[row] = self.emit.fma(weight, pixels[kx], sums[row])
        return sums

    def _line(self, at: Any) -> list[Any]:
        """Return the pixels of three taps side by side."""
        builder, emit = self.builder, self.emit
        if self.stride == 1:
            return [
                emit.wide(self.arg["x"], builder.add(at, I64(kx))) for kx in range(3)
            ]
        low, high, third, fourth = (
            emit.wide(self.arg["x"], builder.add(at, I64(shift)))
            for shift in (0, self.lanes, 2, 2 + self.lanes)
        )
        return [
            self._pick(low, high, 0),
            self._pick(low, high, 1),
            self._pick(third, fourth, 0),
        ]

    def _pick(self, low: Any, high: Any, first: int) -> Any:
        """Return every second lane, within halves where that saves an instruction.

        AVX2 shuffles halves of a register; crossing them costs one more instruction for
        each pick, or one for each sum, whose lanes ``_ordered`` puts right.
        """
        if self.lanes != _HALVED:
            return self.emit.pick(low, high, first, 2)
        lanes = [half + lane for half in (0, 4) for lane in (0, 2, 8, 10)]
        return self.emit.shuffle(low, high, [lane + first for lane in lanes])

    def _ordered(self, value: Any) -> Any:
        """Exchange the middle quarters, as ``_pick`` left them; twice is not at all."""
        if self.stride == 1 or not self.square or self.lanes != _HALVED:
            return value
        return self.emit.shuffle(value, value, [0, 1, 4, 5, 2, 3, 6, 7])

    def _taps(self, start: Any, sums: list[Any]) -> list[Any]:
        """Write a loop over the taps of any kernel."""
        builder, arg, emit = self.builder, self.arg, self.emit

        def one(tap: Any, totals: list[Any]) -> list[Any]:
            offset = builder.sext(emit.load(arg["table"], tap), I64)
            at = builder.add(start, offset)
            pixels = emit.wide(arg["x"], at)
            if self.stride == 2:
                high = emit.wide(arg["x"], builder.add(at, I64(self.lanes)))
                pixels = emit.pick(pixels, high, 0, 2)
            weight = emit.splat(emit.load(arg["weights"], tap))
            return [emit.fma(weight, pixels, totals[0])]

        return loop(builder, arg["taps"], sums, one)


#: Kinds of planes that there is code for: lanes, stride, and whether the kernel is 3x3.
_KINDS = {
    (LANES, 0, 1), (LANES, 0, 0),
    *((lanes, stride, square) for lanes in (LANES, HALF) for stride in (1, 2)
      for square in (0, 1)),
    (SHORTEST, 1, 0), (SHORTEST, 2, 0),
}  # fmt: skip


def _key(builder: Any, kind: Any) -> Any:
    """Write the number of a kind: 8 lanes + 2 second + third."""
    lanes, second, third = (builder.extract_value(kind, i) for i in range(3))
    wide = builder.mul(lanes, I64(8))
    return builder.add(builder.add(wide, builder.mul(second, I64(2))), third)


def _type_plane(
    typingctx: Any, kind: Any, clamp: Any, numbers: Any, pointers: Any
) -> tuple[Any, Any]:
    """Type a call of ``depthwise_plane``."""
    return types.void(kind, clamp, numbers, pointers), _write_plane


def _write_plane(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    values = unpack(builder, args[1:], (CLAMP, NUMBERS, POINTERS))

    def write(lanes: int, stride: int, square: int) -> None:
        call(
            builder,
            f"nnz_depthwise_{lanes}_{stride}_{'square' if square else 'any'}",
            values,
            lambda inner, arg: _Plane(inner, lanes, stride, bool(square), arg).write(),
        )

    writers = {8 * k[0] + 2 * k[1] + k[2]: partial(write, *k) for k in sorted(_KINDS)}
    cases(builder, _key(builder, args[0]), writers)
    return context.get_dummy_value()


#: ``depthwise_plane((lanes, stride, square), clamp, numbers, pointers)`` convolves one
#: plane: lanes of a vector (``LANES``, ``HALF`` or ``SHORTEST``), stride of rows and
#: columns (0 for a flat plane, whose width is a multiple of ``LANES``) and 1 for a 3x3
#: kernel without dilation (not of the shortest vectors); ``clamp`` is (bias, lo, hi),
#: numbers and pointers are those of ``NUMBERS`` and ``POINTERS``. ``x`` points to the
#: first tap of the first pixel, ``table`` to the offsets of all taps from it. A row has
#: at least ``lanes`` pixels.
depthwise_plane: Any = intrinsic(_type_plane)


#: Order of the pointers and of the numbers that ``pool_row`` takes.
POOL_POINTERS = ("x", "y")
POOL_NUMBERS = ("line", "lines", "step", "steps", "width")


class _PoolRow:
    """Writes the loop over the vectors of one row of windows."""

    def __init__(
        self, builder: Any, lanes: int, stride: int, largest: bool, arg: dict[str, Any]
    ):
        self.emit = Emitter(builder, lanes)
        self.builder, self.arg = builder, arg
        self.lanes, self.stride, self.largest = lanes, stride, largest

    def write(self) -> None:
        """Write one vector after the other; the last ends at the last window."""
        builder, arg = self.builder, self.arg
        arg["share"] = self.emit.splat(arg["share"])
        last = builder.sub(arg["width"], I64(self.lanes))
        vectors = builder.sdiv(
            builder.add(arg["width"], I64(self.lanes - 1)), I64(self.lanes)
        )

        def vector(number: Any, _: list[Any]) -> list[Any]:
            column = builder.mul(number, I64(self.lanes))
            inside = builder.icmp_signed("<", column, last)
            self._vector(builder.select(inside, column, last))
            return []

        loop(builder, vectors, [], vector)

    def _vector(self, column: Any) -> None:
        builder, arg, emit = self.builder, self.arg, self.emit
        start = builder.mul(column, I64(self.stride))

        def line(number: Any, held: list[Any]) -> list[Any]:
            first = builder.add(start, builder.mul(number, arg["line"]))

            def tap(step: Any, inner: list[Any]) -> list[Any]:
                at = builder.add(first, builder.mul(step, arg["step"]))
                return [self._add(inner[0], self._pixels(at))]

            return loop(builder, arg["steps"], held, tap)

        nothing = emit.number(float("-inf") if self.largest else 0.0)
        (value,) = loop(builder, arg["lines"], [nothing], line)
        if not self.largest:
            value = builder.fmul(value, arg["share"])
        emit.store(value, arg["y"], column)

    def _pixels(self, at: Any) -> Any:
        emit = self.emit
        low = emit.wide(self.arg["x"], at)
        if self.stride == 1:
            return low
        high = emit.wide(self.arg["x"], self.builder.add(at, I64(self.lanes)))
        return emit.pick(low, high, 0, 2)

    def _add(self, held: Any, pixels: Any) -> Any:
        """Take pixels into a maximum or a sum; a NaN stays."""
        builder = self.builder
        if not self.largest:
            return builder.fadd(held, pixels)
        larger = builder.fcmp_ordered(">", pixels, held)
        nan = builder.fcmp_unordered("uno", pixels, pixels)
        return builder.select(builder.or_(larger, nan), pixels, held)


def _type_pool(
    typingctx: Any, kind: Any, share: Any, numbers: Any, pointers: Any
) -> tuple[Any, Any]:
    """Type a call of ``pool_row``."""
    return types.void(kind, share, numbers, pointers), _write_pool


def _write_pool(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    values = {"share": args[1]}
    values.update(unpack(builder, args[2:], (POOL_NUMBERS, POOL_POINTERS)))

    def write(lanes: int, stride: int, largest: int) -> None:
        call(
            builder,
            f"nnz_pool_{lanes}_{stride}_{'max' if largest else 'mean'}",
            values,
            lambda inner, arg: _PoolRow(
                inner, lanes, stride, bool(largest), arg
            ).write(),
        )

    kinds = [
        (lanes, stride, largest)
        for lanes in sorted({LANES, SHORTEST})
        for stride in (1, 2)
        for largest in (0, 1)
    ]
    writers = {8 * k[0] + 2 * k[1] + k[2]: partial(write, *k) for k in kinds}
    cases(builder, _key(builder, args[0]), writers)
    return context.get_dummy_value()


#: ``pool_row((lanes, stride, largest), share, numbers, pointers)`` pools one row of
#: windows that all lie inside the image: lanes of a vector (``LANES`` or ``SHORTEST``),
#: stride of columns (1 or 2), 1 for a maximum and 0 for a sum, which is multiplied by
#: ``share``; numbers and pointers are those of ``POOL_NUMBERS`` (floats between the
#: lines of a window, lines, floats between the pixels of a line, pixels, windows, at
#: least ``lanes``) and ``POOL_POINTERS``.
pool_row: Any = intrinsic(_type_pool)
