"""Ops on plain arrays on the host."""

from __future__ import annotations

import math
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
from nnz_kernels.arrays import HostArray, aligned_empty
from nnz_kernels.cpu import elementwise as loops
from nnz_kernels.cpu._runtime import readable
from nnz_kernels.cpu.gemm import multiply

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
    return _normalised(x, axis, False)


def log_softmax(x: HostArray, axis: int, /) -> HostArray:
    return _normalised(x, axis, True)


def layer_norm(
    x: HostArray, gamma: HostArray, beta: HostArray | None, eps: float, /
) -> HostArray:
    check_layer_norm(x, gamma, beta)
    out = aligned_empty(x.shape, np.float32)
    if out.size:
        shift = np.zeros(gamma.size, np.float32) if beta is None else beta
        loops._layer_norm(
            readable(x).reshape(-1, gamma.size),
            readable(gamma).reshape(-1),
            readable(shift).reshape(-1),
            np.float32(eps),
            out.reshape(-1, gamma.size),
        )
    return out


def matmul(a: HostArray, b: HostArray, /) -> HostArray:
    check_matmul(a, b)
    left = a[None] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    out = multiply(left, right)
    if b.ndim == 1:
        out = out[..., 0]
    if a.ndim == 1:  # the axis of one row: last but one, or last without columns
        out = out[..., 0] if b.ndim == 1 else out[..., 0, :]
    return np.ascontiguousarray(out)


def reduce(
    kind: ReduceKind, x: HostArray, axes: Sequence[int] | None, keepdims: bool, /
) -> HostArray:
    over = check_reduce(kind, x, axes)
    with np.errstate(all="ignore"):
        result = _REDUCE[kind](x, axis=over, keepdims=keepdims)
    return np.asarray(result, np.float32, order="C")


def binary(kind: BinaryKind, a: HostArray, b: HostArray, /) -> HostArray:
    check_binary(kind, a, b)
    with np.errstate(all="ignore"):
        if kind == "pow" and b.size == 1 and float(b.reshape(())) == 2.0:
            result = np.multiply(a, np.broadcast_to(a, np.broadcast(a, b).shape))
        else:
            result = _BINARY[kind](a, b)
    return np.asarray(result, np.float32, order="C")


def copy(x: HostArray, y: HostArray, /) -> None:
    check_copy(x, y)
    np.copyto(y, x)


def fill(y: HostArray, value: float, /) -> None:
    y[...] = value


def _normalised(x: HostArray, axis: int, logarithm: bool) -> HostArray:
    (axis,) = check_axes(x, (axis,))
    last = np.moveaxis(x, axis, -1)
    rows = readable(last).reshape(math.prod(last.shape[:-1]), last.shape[-1])
    out = aligned_empty(rows.shape, np.float32)
    if out.size:
        loops._softmax(rows, out, logarithm)
    return np.ascontiguousarray(np.moveaxis(out.reshape(last.shape), -1, axis))


def _log_sum_exp(x: HostArray, *, axis: tuple[int, ...], keepdims: bool) -> HostArray:
    top = x.max(axis=axis, keepdims=True)
    shift = np.where(np.isfinite(top), top, np.float32(0))  # inf - inf would be NaN
    total: HostArray = np.log(np.exp(x - shift).sum(axis=axis, keepdims=True)) + shift
    return total if keepdims else np.squeeze(total, axis=axis)
