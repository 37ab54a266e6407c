"""Element by element ops in plain NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nnz_kernels.api.conv import check_buffer
from nnz_kernels.api.pointwise import UnaryKind, check_layout, check_unary
from nnz_kernels.arrays import HostArray
from nnz_kernels.planes import Grid

_erf = np.vectorize(math.erf, otypes=[np.float64])

#: Each kind as a function of float64 values, alpha and beta.
_UNARY: dict[str, Callable[[HostArray, float, float], HostArray]] = {
    "identity": lambda x, a, b: x,
    "relu": lambda x, a, b: np.maximum(x, 0),
    "clip": lambda x, a, b: np.minimum(np.maximum(x, a), b),
    "leaky_relu": lambda x, a, b: np.where(x < 0, a * x, x),
    "sigmoid": lambda x, a, b: _sigmoid(x),
    "tanh": lambda x, a, b: np.tanh(x),
    "erf": lambda x, a, b: _erf(x),
    "gelu": lambda x, a, b: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x, a, b: (
        0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "exp": lambda x, a, b: np.exp(x),
    "log": lambda x, a, b: np.log(x),
    "sqrt": lambda x, a, b: np.sqrt(x),
    "neg": lambda x, a, b: -x,
    "abs": lambda x, a, b: np.abs(x),
    "reciprocal": lambda x, a, b: 1 / x,
    "hard_sigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "hard_swish": lambda x, a, b: x * np.clip(x / 6 + 0.5, 0, 1),
    "silu": lambda x, a, b: x * _sigmoid(x),
}


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
    with np.errstate(all="ignore"):
        result = _UNARY[kind](x.astype(np.float64), alpha, beta).astype(np.float32)
    y[...] = result.reshape(y.shape)


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
    pixels = grid.view(x, channels).astype(np.float64)
    column = (channels, 1, 1, 1)
    result = pixels * scale[:channels].reshape(column)
    result += shift[:channels].reshape(column)
    _store(result.clip(lo, hi), y, grid)


def add_planes(
    a: HostArray, b: HostArray, y: HostArray, lo: float, hi: float, /
) -> None:
    check_buffer("b", b, a.size)
    check_buffer("y", y, a.size)
    y[...] = (a.astype(np.float64) + b).clip(lo, hi)


def prelu(
    x: HostArray, slope: HostArray, y: HostArray, grid: Grid, channels: int, /
) -> None:
    check_buffer("slope", slope, channels)
    pixels = grid.view(x, channels).astype(np.float64)
    steep = pixels * slope[:channels].reshape(channels, 1, 1, 1)
    _store(np.where(pixels < 0, steep, pixels), y, grid)


def zero_border(y: HostArray, grid: Grid, channels: int, /) -> None:
    _store(grid.view(y, channels).copy(), y, grid)


def to_planes(x: HostArray, y: HostArray, grid: Grid, /) -> None:
    check_layout("x", x, (grid.n, -1, grid.h, grid.w))
    _store(x.transpose(1, 0, 2, 3), y, grid)


def from_planes(x: HostArray, grid: Grid, channels: int, out: HostArray, /) -> None:
    check_layout("out", out, (grid.n, channels, grid.h, grid.w))
    out[...] = grid.view(x, channels).transpose(1, 0, 2, 3)


def to_tokens(x: HostArray, y: HostArray, grid: Grid, /) -> None:
    check_layout("x", x, (grid.pixels, -1))
    _store(x.T.reshape(-1, grid.n, grid.h, grid.w), y, grid)


def from_tokens(x: HostArray, grid: Grid, features: int, out: HostArray, /) -> None:
    check_layout("out", out, (grid.pixels, features))
    out[...] = grid.view(x, features).reshape(features, -1).T


def _store(pixels: HostArray, y: HostArray, grid: Grid) -> None:
    """Write pixels ``[c, n, h, w]``, and zero everywhere else."""
    check_buffer("y", y, grid.size(pixels.shape[0]))
    y[...] = 0
    grid.view(y, pixels.shape[0])[...] = pixels


def _sigmoid(x: HostArray) -> HostArray:
    result: HostArray = 1 / (1 + np.exp(-x))
    return result
