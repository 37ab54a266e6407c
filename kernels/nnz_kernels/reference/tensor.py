"""Ops on plain arrays in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnz_kernels.api.tensor import (
    BinaryKind,
    ReduceKind,
    check_axes,
    check_binary,
    check_copy,
    check_layer_norm,
    check_matmul,
    check_reduce,
)
from nnz_kernels.arrays import HostArray

#: Each kind as a function of float64 values, axes and keepdims.
_REDUCE: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "l1": lambda x, **over: np.abs(x).sum(**over),
    "l2": lambda x, **over: np.sqrt(np.square(x).sum(**over)),
    "sum_square": lambda x, **over: np.square(x).sum(**over),
    "log_sum": lambda x, **over: np.log(x.sum(**over)),
    "log_sum_exp": lambda x, **over: _log_sum_exp(x, **over),
}

_BINARY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "min": np.minimum,
    "max": np.maximum,
}


def softmax(x: HostArray, axis: int, /) -> HostArray:
    return np.exp(_log_softmax(x, axis)).astype(np.float32)


def log_softmax(x: HostArray, axis: int, /) -> HostArray:
    return _log_softmax(x, axis).astype(np.float32)


def layer_norm(
    x: HostArray, gamma: HostArray, beta: HostArray | None, eps: float, /
) -> HostArray:
    check_layer_norm(x, gamma, beta)
    axes = tuple(range(x.ndim - gamma.ndim, x.ndim))
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=axes, keepdims=True)
    variance = np.square(centred).mean(axis=axes, keepdims=True)
    out: HostArray = centred / np.sqrt(variance + eps) * gamma
    if beta is not None:
        out = out + beta
    return out.astype(np.float32)


def matmul(a: HostArray, b: HostArray, /) -> HostArray:
    check_matmul(a, b)
    with np.errstate(invalid="ignore"):
        product: HostArray = a.astype(np.float64) @ b.astype(np.float64)
    return product.astype(np.float32)


def reduce(
    kind: ReduceKind, x: HostArray, axes: Sequence[int] | None, keepdims: bool, /
) -> HostArray:
    over = check_reduce(kind, x, axes)
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        result = _REDUCE[kind](wide, axis=over, keepdims=keepdims)
    return np.asarray(result, dtype=np.float32)


def binary(kind: BinaryKind, a: HostArray, b: HostArray, /) -> HostArray:
    check_binary(kind, a, b)
    with np.errstate(all="ignore"):
        wide = _BINARY[kind](a.astype(np.float64), b.astype(np.float64))
        return np.asarray(wide, dtype=np.float32)


def copy(x: HostArray, y: HostArray, /) -> None:
    check_copy(x, y)
    np.copyto(y, x)


def fill(y: HostArray, value: float, /) -> None:
    y[...] = value


def _log_softmax(x: HostArray, axis: int) -> HostArray:
    check_axes(x, (axis,))
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        return wide - _log_sum_exp(wide, axis=axis, keepdims=True)


def _log_sum_exp(
    x: HostArray, *, axis: int | tuple[int, ...] | None, keepdims: bool
) -> HostArray:
    top = x.max(axis=axis, keepdims=True)
    shift = np.where(np.isfinite(top), top, 0)  # inf - inf would be NaN
    total: HostArray = np.log(np.exp(x - shift).sum(axis=axis, keepdims=True)) + shift
    return total if keepdims else np.squeeze(total, axis=axis)
