"""Ops on plain row-major float32 arrays of any rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar, get_args

import numpy as np

from nnz_kernels.arrays import AnyArray
from nnz_kernels.errors import DTypeError, ShapeError

Array = TypeVar("Array")

ReduceKind = Literal[
    "sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square", "log_sum",
    "log_sum_exp",
]  # fmt: skip
BinaryKind = Literal["add", "sub", "mul", "div", "pow", "min", "max"]

#: Every kind of ``reduce``.
REDUCE_KINDS: tuple[ReduceKind, ...] = get_args(ReduceKind)
#: Every kind of ``binary``.
BINARY_KINDS: tuple[BinaryKind, ...] = get_args(BinaryKind)


def check_axes(x: AnyArray, axes: Sequence[int]) -> tuple[int, ...]:
    """Return axes counted from the front.

    Raises:
        ShapeError: One is not there or named twice.
    """
    for axis in axes:
        if not -x.ndim <= axis < x.ndim:
            raise ShapeError(f"axis {axis} is not in an array of {x.ndim} axes")
    front = tuple(axis % x.ndim for axis in axes)
    if len(set(front)) != len(front):
        raise ShapeError(f"axes must differ, got {tuple(axes)}")
    return front


def check_reduce(kind: str, x: AnyArray, axes: Sequence[int] | None) -> tuple[int, ...]:
    """Check what ``reduce`` is given and return the axes counted from the front.

    Raises:
        ShapeError: No such axis, or the largest or smallest of nothing.
        ValueError: No such kind.
    """
    if kind not in REDUCE_KINDS:
        raise ValueError(f"reduce has no kind {kind!r}; it has {REDUCE_KINDS}")
    over = check_axes(x, range(x.ndim) if axes is None else axes)
    if kind in ("max", "min", "log_sum_exp") and any(
        x.shape[axis] == 0 for axis in over
    ):
        raise ShapeError(f"{kind} of an empty axis: shape {x.shape}, axes {over}")
    return over


def check_layer_norm(x: AnyArray, gamma: AnyArray, beta: AnyArray | None) -> None:
    """Check what ``layer_norm`` is given.

    Raises:
        ShapeError: Gamma or beta is not of the shape of the last axes.
    """
    if gamma.ndim < 1 or x.shape[x.ndim - gamma.ndim :] != gamma.shape:
        raise ShapeError(f"gamma {gamma.shape} must be the last axes of x {x.shape}")
    if beta is not None and beta.shape != gamma.shape:
        raise ShapeError(f"beta must be {gamma.shape} as gamma, got {beta.shape}")


def check_matmul(a: AnyArray, b: AnyArray) -> None:
    """Check what ``matmul`` is given.

    Raises:
        ShapeError: The shapes do not fit.
    """
    if a.ndim < 1 or b.ndim < 1:
        raise ShapeError("matmul needs arrays with axes")
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    if a.shape[-1] != inner:
        raise ShapeError(f"matmul of {a.shape} and {b.shape}: inner sizes differ")
    _broadcast(a.shape[:-2], b.shape[:-2])


def check_binary(kind: str, a: AnyArray, b: AnyArray) -> None:
    """Check what ``binary`` is given.

    Raises:
        ShapeError: The shapes do not broadcast.
        ValueError: No such kind.
    """
    if kind not in BINARY_KINDS:
        raise ValueError(f"binary has no kind {kind!r}; it has {BINARY_KINDS}")
    _broadcast(a.shape, b.shape)


def check_copy(x: AnyArray, y: AnyArray) -> None:
    """Check what ``copy`` is given.

    Raises:
        ShapeError: ``x`` does not broadcast to the shape of ``y``.
        DTypeError: The types differ.
    """
    if x.dtype != y.dtype:
        raise DTypeError(f"a copy keeps the type, got {x.dtype} and {y.dtype}")
    _broadcast(x.shape, y.shape)
    if np.broadcast_shapes(x.shape, y.shape) != y.shape:
        raise ShapeError(f"{x.shape} does not broadcast to {y.shape}")


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    try:
        np.broadcast_shapes(a, b)
    except ValueError as exc:
        raise ShapeError(f"shapes {a} and {b} do not broadcast") from exc


class TensorOps(Protocol[Array]):
    """Ops that give a new float32 array in C order, and copies; NaN passes through."""

    def softmax(self, x: Array, axis: int, /) -> Array:
        """Return ``exp(x)`` over its sum along an axis, shifted so as not to overflow.

        Raises:
            ShapeError: No such axis.
        """
        ...

    def log_softmax(self, x: Array, axis: int, /) -> Array:
        """Return the logarithm of ``softmax``, exact where that would underflow."""
        ...

    def layer_norm(
        self, x: Array, gamma: Array, beta: Array | None, eps: float, /
    ) -> Array:
        """Return ``(x - mean) / sqrt(variance + eps) * gamma + beta``.

        Mean and (biased) variance are over the last ``gamma.ndim`` axes of ``x``, whose
        shape ``gamma`` and ``beta`` have.

        Raises:
            ShapeError: The shapes of ``gamma`` or ``beta`` do not fit.
        """
        ...

    def matmul(self, a: Array, b: Array, /) -> Array:
        """Return the product of the last two axes, the others broadcast as in NumPy.

        Raises:
            ShapeError: The shapes do not fit.
        """
        ...

    def reduce(
        self, kind: ReduceKind, x: Array, axes: Sequence[int] | None, keepdims: bool, /
    ) -> Array:
        """Return a reduction over some axes, all of them for None.

        Raises:
            ShapeError: No such axis, or the largest or smallest of nothing.
            ValueError: No such kind.
        """
        ...

    def binary(self, kind: BinaryKind, a: Array, b: Array, /) -> Array:
        """Return ``a op b``, broadcast as in NumPy.

        Raises:
            ShapeError: The shapes do not broadcast.
            ValueError: No such kind.
        """
        ...

    def copy(self, x: Array, y: Array, /) -> None:
        """Write ``x``, of any type and strides, to ``y`` of its type, broadcast.

        Raises:
            ShapeError: ``x`` does not broadcast to the shape of ``y``.
            DTypeError: The types differ.
        """
        ...

    def fill(self, y: Array, value: float, /) -> None:
        """Write one value everywhere."""
        ...
