"""Jitted loops of the ops on single elements and on rows of plain arrays.

The exponential and the error function come from `_math`; all other jitted code is in
this file: numba's cache does not see changes elsewhere.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._frame import reader
from nnz_kernels.cpu._math import (
    EXACT,
    _erf,
    _exp,
    _from_bits,
    _gelu,
    _gelu_tanh,
    _hard_swish,
    _silu,
    _to_bits,
    _unit,
)
from nnz_kernels.cpu._runtime import FASTMATH, SERIAL

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

#: Kinds of ``unary`` that NumPy has no vectorised loop for.
LEAKY_RELU, SIGMOID, ERF, GELU, GELU_TANH, HARD_SIGMOID, HARD_SWISH, SILU = range(8)
#: Kinds of ``channel_rows``.
AFFINE, PRELU, BORDER = range(3)
#: Columns of the table that describes a grid.
LD, AT, ROWS, PITCH, IMAGES, HEIGHT, WIDTH = range(7)

_SUMS: dict[str, Any] = {**SERIAL, "fastmath": FASTMATH, "error_model": "numpy"}


@numba.njit(**EXACT)
def _unary(kind, x, y, alpha, beta):  # type: ignore[no-untyped-def]
    """Apply one function to a flat array."""
    if kind == LEAKY_RELU:
        for i in range(x.size):
            y[i] = alpha * x[i] if x[i] < _ZERO else x[i]
    elif kind == SIGMOID:
        for i in range(x.size):
            y[i] = _ONE / (_ONE + _exp(-x[i]))
    elif kind == ERF:
        for i in range(x.size):
            y[i] = _erf(x[i])
    elif kind == GELU:
        for i in range(x.size):
            y[i] = _gelu(x[i])
    elif kind == GELU_TANH:
        for i in range(x.size):
            y[i] = _gelu_tanh(x[i])
    elif kind == HARD_SIGMOID:
        for i in range(x.size):
            y[i] = _unit(alpha * x[i] + beta)
    elif kind == HARD_SWISH:
        for i in range(x.size):
            y[i] = _hard_swish(x[i])
    else:
        for i in range(x.size):
            y[i] = _silu(x[i])


@numba.njit(**EXACT)
def _add(a, b, y, lo, hi):  # type: ignore[no-untyped-def]
    """Add flat arrays and clamp."""
    for i in range(a.size):
        v = a[i] + b[i]
        v = lo if v < lo else v
        y[i] = hi if v > hi else v


@numba.njit(**EXACT)
def _channel_rows(kind, x, a, b, lo, hi, y, table, channels):  # type: ignore[no-untyped-def]
    """Apply a function that depends on the channel to the pixels; zero the rest.

    Places are unsigned, which saves the check for negative ones.
    """
    ld, width, images, height = table[LD], table[WIDTH], table[IMAGES], table[HEIGHT]
    for c in range(channels):
        y[c * ld : c * ld + table[AT]] = _ZERO
        for image in range(images):
            for r in range(height):
                row = image * table[ROWS] + r
                start = c * ld + table[AT] + row * table[PITCH]
                if kind == AFFINE:
                    for p in range(start, start + width):
                        v = x[np.uint64(p)] * a[c] + b[c]
                        v = lo if v < lo else v
                        y[np.uint64(p)] = hi if v > hi else v
                elif kind == PRELU:
                    for p in range(start, start + width):
                        v = x[np.uint64(p)]
                        y[np.uint64(p)] = a[c] * v if v < _ZERO else v
                after = (
                    table[PITCH] if r + 1 < height
                    else (table[ROWS] - height + 1) * table[PITCH]
                )  # fmt: skip
                end = start + after
                if image + 1 == images and r + 1 == height:
                    end = (c + 1) * ld
                for p in range(start + width, end):
                    y[np.uint64(p)] = _ZERO


@numba.njit(**EXACT)
def _spread_image(x, y, table, channels):  # type: ignore[no-untyped-def]
    """Write images ``[n, c, h, w]`` into planes, zeros around their pixels."""
    ld, width, images, height = table[LD], table[WIDTH], table[IMAGES], table[HEIGHT]
    for c in range(channels):
        done = c * ld
        for image in range(images):
            at = (image * channels + c) * height * width
            to = c * ld + table[AT] + image * table[ROWS] * table[PITCH]
            for _ in range(height):
                y[done:to] = _ZERO
                done = to + width
                for p in range(width):
                    y[np.uint64(to + p)] = x[np.uint64(at + p)]
                at += width
                to += table[PITCH]
        y[done : (c + 1) * ld] = _ZERO
    y[channels * ld :] = _ZERO


@numba.njit(**EXACT)
def _gather_image(x, y, table, channels):  # type: ignore[no-untyped-def]
    """Write the pixels of planes as images ``[n, c, h, w]``."""
    width, height = table[WIDTH], table[HEIGHT]
    for image in range(table[IMAGES]):
        for c in range(channels):
            to = (image * channels + c) * height * width
            at = c * table[LD] + table[AT] + image * table[ROWS] * table[PITCH]
            for _ in range(height):
                for p in range(width):
                    y[np.uint64(to + p)] = x[np.uint64(at + p)]
                to += width
                at += table[PITCH]


@numba.njit(**EXACT)
def _transpose(x, x_ld, y, y_ld, rows, columns):  # type: ignore[no-untyped-def]
    """Write ``y[j * y_ld + i] = x[i * x_ld + j]`` by tiles that fit the cache."""
    tile = 16
    for top in range(0, rows, tile):
        bottom = min(top + tile, rows)
        for left in range(0, columns, tile):
            for j in range(left, min(left + tile, columns)):
                for i in range(top, bottom):
                    y[j * y_ld + i] = x[i * x_ld + j]


@numba.njit(inline="always", **EXACT)
def _ordered(bits):  # type: ignore[no-untyped-def]
    """Map the bits of floats to integers of the same order, and back."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@numba.njit(**EXACT)
def _largest(row):  # type: ignore[no-untyped-def]
    """Return the largest value, compared as integers: a search that vectorises.

    A NaN counts as larger or smaller than everything, by its sign.
    """
    top = _ordered(_to_bits(row[0]))
    for i in range(1, row.size):
        key = _ordered(_to_bits(row[i]))
        top = key if key > top else top
    return _from_bits(_ordered(top))


@numba.njit(**_SUMS)
def _sum(row):  # type: ignore[no-untyped-def]
    total = _ZERO
    for i in range(row.size):
        total += row[i]
    return total


@numba.njit(**EXACT)
def _softmax(x, y, logarithm):  # type: ignore[no-untyped-def]
    """Normalise every row of a matrix."""
    for r in range(x.shape[0]):
        row, out = x[r], y[r]
        top = _largest(row)
        for i in range(row.size):
            out[i] = _exp(row[i] - top)
        total = _sum(out)
        if logarithm:
            shift = np.float32(np.log(total))
            for i in range(row.size):
                out[i] = (row[i] - top) - shift  # top + shift would lose digits
        else:
            scale = _ONE / total
            for i in range(row.size):
                out[i] = out[i] * scale


@numba.njit(**_SUMS)
def _layer_norm(x, gamma, beta, eps, y):  # type: ignore[no-untyped-def]
    """Normalise every row of a matrix; the variance is taken around the mean."""
    width = np.float32(x.shape[1])
    for r in range(x.shape[0]):
        row, out = x[r], y[r]
        mean = _sum(row) / width
        variance = _ZERO
        for i in range(row.size):
            variance += (row[i] - mean) * (row[i] - mean)
        scale = _ONE / np.sqrt(variance / width + eps)
        for i in range(row.size):
            out[i] = (row[i] - mean) * scale * gamma[i] + beta[i]


@numba.njit(**EXACT)
def _spread_tokens(x, y, table, features):  # type: ignore[no-untyped-def]
    """Write rows of features into planes, zeros around their tokens."""
    tokens, ld, at = table[WIDTH], table[LD], table[AT]
    _transpose(x, features, y[at:], ld, tokens, features)
    for c in range(features):
        y[c * ld : c * ld + at] = _ZERO
        y[c * ld + at + tokens : (c + 1) * ld] = _ZERO
    y[features * ld :] = _ZERO


_F, _M, _V, _I = types.float32[::1], types.float32[:, ::1], types.float32, types.int64
#: What frames hold.
ADD = (_F, _F, _F, _V, _V)
IMAGE = (_F, _F, types.int64[::1], _I)
TRANSPOSE = (_F, _I, _F, _I, _I, _I)

_read_add, _read_image = reader(ADD), reader(IMAGE)
_read_transpose = reader(TRANSPOSE)


@numba.njit(**EXACT)
def _add_call(frame):  # type: ignore[no-untyped-def]
    """Add what a frame holds."""
    _add(*_read_add(frame))


@numba.njit(**EXACT)
def _gather_image_call(frame):  # type: ignore[no-untyped-def]
    """Write the images of a frame."""
    _gather_image(*_read_image(frame))


@numba.njit(**EXACT)
def _spread_tokens_call(frame):  # type: ignore[no-untyped-def]
    """Write the tokens of a frame."""
    _spread_tokens(*_read_image(frame))


@numba.njit(**EXACT)
def _transpose_call(frame):  # type: ignore[no-untyped-def]
    """Turn the matrix of a frame."""
    _transpose(*_read_transpose(frame))


ENTRIES = (
    Entry(_unary, ((_I, _F, _F, _V, _V),)),
    Entry(_add_call, ((_I,),)),
    Entry(_channel_rows, ((_I, _F, _F, _F, _V, _V, _F, types.int64[::1], _I),)),
    Entry(_spread_image, ((_F, _F, types.int64[::1], _I),)),
    Entry(_gather_image_call, ((_I,),)),
    Entry(_spread_tokens_call, ((_I,),)),
    Entry(_transpose_call, ((_I,),)),
    Entry(_softmax, ((_M, _M, types.boolean),)),
    Entry(_layer_norm, ((_M, _F, _F, _V, _M),)),
)
