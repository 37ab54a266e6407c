"""LLVM intrinsics of attention and normalisation: a few vectors of tokens at a time.

Nothing here sums across the lanes of a vector: a lane is a token, and a token's answer
does not depend on the lane it is in. Places are floats from the start of an array;
`switch` bounds the number of vectors by a literal, for each of which there is code.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from nnz_kernels.cpu._emit import F32, I64, Emitter, loop, switch
from nnz_kernels.cpu._simd import LANES

_intrinsic: Any = intrinsic(prefer_literal=True)


@_intrinsic
def tile(typingctx, height, widest, vectors, steps, places, addresses):  # type: ignore[no-untyped-def]
    """Write ``out[row, p] = factor[p] * sum over taps of w[tap, row] * x[tap, p]``.

    The *height* (literal) rows times *vectors* (at most the literal *widest*) sums stay
    in registers. Values of w are at ``tap * w_tap + row * w_row``, vectors of x at
    ``tap * x_ld``, those of out at ``row * out_ld``. *steps* is (taps, w_row, w_tap,
    x_ld, out_ld), with at least one tap; *places* is where w, x and out start, and
    *addresses* are those of w, x, out and factor.
    """
    given = (height, widest, vectors, steps, places, addresses)
    return types.void(*given), _write_tile


def _write_tile(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    rows = range(sig.args[0].literal_value)
    taps, w_row, w_tap, x_ld, out_ld = _parts(builder, args[3], 5)
    w, x, out, factor = _parts(builder, args[5], 4)
    w, x, out = (
        builder.gep(start, [place])
        for start, place in zip((w, x, out), _parts(builder, args[4], 3), strict=True)
    )
    emit = Emitter(builder)

    def body(width: int) -> None:
        vectors = range(width)

        def turn(tap: Any, sums: list[Any]) -> list[Any]:
            source = emit.place(x, (tap, x_ld))
            pixels = [emit.wide(source, I64(v * LANES)) for v in vectors]
            weights = emit.place(w, (tap, w_tap))
            new: list[Any] = []
            for row in rows:
                place = emit.place(weights, (I64(row), w_row))
                weight = emit.splat(builder.load(place))
                for v in vectors:
                    new.append(emit.fma(weight, pixels[v], sums[len(new)]))
            return new

        zeros = [emit.number(0.0)] * (len(rows) * len(vectors))
        sums = iter(loop(builder, taps, zeros, turn))
        factors = [emit.wide(factor, I64(v * LANES)) for v in vectors]
        for row in rows:
            target = emit.place(out, (I64(row), out_ld))
            for v in vectors:
                emit.store(builder.fmul(next(sums), factors[v]), target, I64(v * LANES))

    switch(builder, args[2], sig.args[1].literal_value, body)
    return context.get_dummy_value()


@_intrinsic
def shift_columns(typingctx, widest, vectors, rows, matrix):  # type: ignore[no-untyped-def]
    """Subtract from every column of a matrix its largest value.

    A row holds *vectors* (at most the literal *widest*), the next follows it, and there
    is at least one; *matrix* is an address. A NaN is not larger than anything; what is
    subtracted from it is no matter.
    """
    return types.void(widest, vectors, rows, matrix), _write_shift


def _write_shift(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _, count, rows, matrix = args
    emit = Emitter(builder)
    ld = _floats(builder, count)

    def body(width: int) -> None:
        vectors = range(width)

        def largest(row: Any, tops: list[Any]) -> list[Any]:
            source = emit.place(matrix, (row, ld))
            values = [emit.wide(source, I64(v * LANES)) for v in vectors]
            return [
                builder.select(builder.fcmp_ordered(">", value, top), value, top)
                for value, top in zip(values, tops, strict=True)
            ]

        first = [emit.wide(matrix, I64(v * LANES)) for v in vectors]
        tops = loop(builder, rows, first, largest)

        def subtract(row: Any, held: list[Any]) -> list[Any]:
            target = emit.place(matrix, (row, ld))
            for v in vectors:
                value = builder.fsub(emit.wide(target, I64(v * LANES)), tops[v])
                emit.store(value, target, I64(v * LANES))
            return held

        loop(builder, rows, [], subtract)

    switch(builder, count, sig.args[0].literal_value, body)
    return context.get_dummy_value()


@_intrinsic
def invert_sums(typingctx, widest, vectors, rows, matrix, out):  # type: ignore[no-untyped-def]
    """Write one over the sum of every column of a matrix, as `shift_columns` has it."""
    return types.void(widest, vectors, rows, matrix, out), _write_sums


def _write_sums(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    _, count, rows, matrix, out = args
    emit = Emitter(builder)
    ld = _floats(builder, count)

    def body(width: int) -> None:
        vectors = range(width)

        def add(row: Any, sums: list[Any]) -> list[Any]:
            source = emit.place(matrix, (row, ld))
            return [
                builder.fadd(sums[v], emit.wide(source, I64(v * LANES)))
                for v in vectors
            ]

        sums = loop(builder, rows, [emit.number(0.0)] * len(vectors), add)
        for v in vectors:
            emit.store(builder.fdiv(emit.number(1.0), sums[v]), out, I64(v * LANES))

    switch(builder, count, sig.args[0].literal_value, body)
    return context.get_dummy_value()


@_intrinsic
def normalise_columns(typingctx, widest, vectors, sizes, eps, addresses):  # type: ignore[no-untyped-def]
    """Write ``y = (x - mean) / sqrt(variance + eps) * gamma + beta`` for some columns.

    These are *vectors* (at most the literal *widest*) of columns; *sizes* is (channels,
    floats from one to the next, first column), and *addresses* are those of x, y, gamma
    and beta. The first two may be the same.
    """
    given = (widest, vectors, sizes, eps, addresses)
    return types.void(*given), _write_normalise


def _write_normalise(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    channels, ld, first = _parts(builder, args[2], 3)
    x, y, gamma, beta = _parts(builder, args[4], 4)
    x, y = (builder.gep(start, [first]) for start in (x, y))
    emit = Emitter(builder)
    eps = emit.splat(args[3])
    total = emit.splat(builder.sitofp(channels, F32))

    def body(width: int) -> None:
        vectors = range(width)

        def at(channel: Any) -> list[Any]:
            source = emit.place(x, (channel, ld))
            return [emit.wide(source, I64(v * LANES)) for v in vectors]

        def add(channel: Any, sums: list[Any]) -> list[Any]:
            parts = zip(at(channel), sums, strict=True)
            return [builder.fadd(held, value) for value, held in parts]

        zeros = [emit.number(0.0)] * len(vectors)
        means = [builder.fdiv(s, total) for s in loop(builder, channels, zeros, add)]

        def square(channel: Any, sums: list[Any]) -> list[Any]:
            apart = [
                builder.fsub(p, m) for p, m in zip(at(channel), means, strict=True)
            ]
            return [emit.fma(a, a, s) for a, s in zip(apart, sums, strict=True)]

        scales = []
        for held in loop(builder, channels, zeros, square):
            variance = builder.fadd(builder.fdiv(held, total), eps)
            scales.append(builder.fdiv(emit.number(1.0), emit.sqrt(variance)))

        def write(channel: Any, held: list[Any]) -> list[Any]:
            slope, shift = (
                emit.splat(builder.load(builder.gep(start, [channel])))
                for start in (gamma, beta)
            )
            target = emit.place(y, (channel, ld))
            for v, value in enumerate(at(channel)):
                apart = builder.fmul(builder.fsub(value, means[v]), scales[v])
                emit.store(emit.fma(apart, slope, shift), target, I64(v * LANES))
            return held

        loop(builder, channels, [], write)

    switch(builder, args[1], sig.args[0].literal_value, body)
    return context.get_dummy_value()


def _parts(builder: Any, values: Any, count: int) -> list[Any]:
    """Take a tuple apart."""
    return [builder.extract_value(values, i) for i in range(count)]


def _floats(builder: Any, vectors: Any) -> Any:
    """Return how many floats so many vectors hold."""
    return builder.mul(vectors, I64(LANES))
