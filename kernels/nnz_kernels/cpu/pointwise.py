"""Element by element ops on the host: NumPy's loops where they are vectorised."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nnz_kernels.api.attach import Attachable, Call
from nnz_kernels.api.conv import check_buffer
from nnz_kernels.api.pointwise import UnaryKind, check_layout, check_unary
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu import elementwise as loops
from nnz_kernels.cpu._frame import sealed
from nnz_kernels.cpu._runtime import readable
from nnz_kernels.planes import Grid

_NUMPY: dict[str, Callable[..., Any]] = {
    "identity": np.positive,
    "tanh": np.tanh,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "neg": np.negative,
    "abs": np.absolute,
    "reciprocal": np.reciprocal,
}

_JITTED: dict[str, int] = {
    "leaky_relu": loops.LEAKY_RELU,
    "sigmoid": loops.SIGMOID,
    "erf": loops.ERF,
    "gelu": loops.GELU,
    "gelu_tanh": loops.GELU_TANH,
    "hard_sigmoid": loops.HARD_SIGMOID,
    "hard_swish": loops.HARD_SWISH,
    "silu": loops.SILU,
}

_NOTHING = np.empty(0, np.float32)


def unary(
    kind: UnaryKind,
    x: HostArray,
    y: HostArray,
    /,
    *,
    alpha: float = 0.0,
    beta: float = 0.0,
) -> None:
    check_unary(kind, x, y)
    flat, out = readable(x).reshape(-1), _flat(y)
    with np.errstate(all="ignore"):
        if kind == "relu":
            np.maximum(flat, np.float32(0), out=out)
        elif kind == "clip":
            np.maximum(flat, np.float32(alpha), out=out)
            np.minimum(out, np.float32(beta), out=out)
        elif kind in _NUMPY:
            _NUMPY[kind](flat, out=out)
        else:
            loops._unary(_JITTED[kind], flat, out, np.float32(alpha), np.float32(beta))


def channel_affine(
    x: HostArray,
    scale: HostArray,
    shift: HostArray,
    lo: float,
    hi: float,
    y: HostArray,
    grid: Grid,
    channels: int,
    /,
) -> None:
    check_buffer("scale", scale, channels)
    check_buffer("shift", shift, channels)
    _channel_rows(loops.AFFINE, x, scale, shift, (lo, hi), y, grid, channels)


@Attachable
def add_planes(
    a: HostArray, b: HostArray, y: HostArray, lo: float, hi: float, /
) -> Call:
    check_buffer("a", a, 0)
    check_buffer("b", b, a.size)
    check_buffer("y", y, a.size)
    return sealed(loops._add_call, loops.ADD, readable(a), readable(b), y, lo, hi)


def prelu(
    x: HostArray, slope: HostArray, y: HostArray, grid: Grid, channels: int, /
) -> None:
    check_buffer("slope", slope, channels)
    _channel_rows(loops.PRELU, x, slope, _NOTHING, (0, 0), y, grid, channels)


def zero_border(y: HostArray, grid: Grid, channels: int, /) -> None:
    _channel_rows(loops.BORDER, y, _NOTHING, _NOTHING, (0, 0), y, grid, channels)


def to_planes(x: HostArray, y: HostArray, grid: Grid, /) -> None:
    # In a hurry: every run of a network begins with it.
    if x.ndim != 4 or x.shape[2:] != (grid.h, grid.w) or len(x) != grid.n:
        check_layout("x", x, (grid.n, -1, grid.h, grid.w))
    channels = x.shape[1]
    check_buffer("y", y, grid.size(channels))
    loops._spread_image(readable(x).reshape(-1), y, _table(grid), channels)


@Attachable
def from_planes(x: HostArray, grid: Grid, channels: int, out: HostArray, /) -> Call:
    check_layout("out", out, (grid.n, channels, grid.h, grid.w))
    check_buffer("x", x, grid.size(channels))
    if out.flags.c_contiguous:
        arguments = (readable(x), _flat(out), _table(grid), channels)
        return sealed(loops._gather_image_call, loops.IMAGE, *arguments)
    return _copy(out, grid.view(x, channels).transpose(1, 0, 2, 3))


@Attachable
def to_tokens(x: HostArray, y: HostArray, grid: Grid, /) -> Call:
    check_layout("x", x, (grid.pixels, -1))
    features = x.shape[1]
    if grid.h == grid.n == 1:
        check_buffer("y", y, grid.size(features))
        arguments = (readable(x).reshape(-1), y, _table(grid), features)
        return sealed(loops._spread_tokens_call, loops.IMAGE, *arguments)

    def run() -> None:
        pixels = x.T.reshape(features, grid.n, grid.h, grid.w)
        grid.view(y, features)[...] = pixels
        zero_border(y, grid, features)

    return run


@Attachable
def from_tokens(x: HostArray, grid: Grid, features: int, out: HostArray, /) -> Call:
    check_layout("out", out, (grid.pixels, features))
    if grid.h == grid.n == 1 and out.flags.c_contiguous:
        check_buffer("x", x, grid.size(features))
        start = readable(x)[grid.lead :]
        arguments = (start, grid.ld, _flat(out), features, features, grid.w)
        return sealed(loops._transpose_call, loops.TRANSPOSE, *arguments)

    def run() -> None:
        out[...] = grid.view(x, features).reshape(features, -1).T

    return run


def _copy(out: HostArray, source: HostArray) -> Call:
    def run() -> None:
        out[...] = source

    return run


@functools.lru_cache(maxsize=256)
def _table(grid: Grid) -> HostArray:
    places = (grid.ld, grid.lead, grid.rows, grid.pitch, grid.n, grid.h, grid.w)
    return np.array(places, np.int64)


def _channel_rows(
    kind: int,
    x: HostArray,
    a: HostArray,
    b: HostArray,
    clamp: tuple[float, float],
    y: HostArray,
    grid: Grid,
    channels: int,
) -> None:
    check_buffer("x", x, grid.size(channels))
    check_buffer("y", y, grid.size(channels))
    table = _table(grid)
    lo, hi = np.float32(clamp[0]), np.float32(clamp[1])
    loops._channel_rows(
        kind, readable(x), readable(a), readable(b), lo, hi, y, table, channels
    )
    y[channels * grid.ld :] = 0


def _flat(y: HostArray) -> HostArray:
    """Return a view of an output as one run of floats; never a copy."""
    view = y.view()
    view.shape = (y.size,)
    return view
