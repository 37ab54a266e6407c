"""Ops on plain row-major float32 arrays of any rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar, get_args

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


class TensorOps(Protocol[Array]):
    """Ops that give a new float32 array in C order; NaN passes through."""

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
