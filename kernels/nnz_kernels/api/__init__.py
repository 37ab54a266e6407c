"""The op table: what a back-end offers, one Protocol a family."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

from nnz_kernels.api.attach import attach
from nnz_kernels.api.attention import AttentionOps, AttentionSpec
from nnz_kernels.api.conv import BoundConv, ConvOps, ConvSpec, PreparedConv, Tiling
from nnz_kernels.api.device import DeviceMemory
from nnz_kernels.api.pointwise import PointwiseOps
from nnz_kernels.api.pool import PoolOps, PoolSpec
from nnz_kernels.api.products import ProductOps
from nnz_kernels.api.tensor import TensorOps
from nnz_kernels.api.vectors import VectorOps

__all__ = [
    "FAMILIES",
    "AttentionOps",
    "AttentionSpec",
    "BoundConv",
    "ConvOps",
    "ConvSpec",
    "DeviceMemory",
    "Kernels",
    "PointwiseOps",
    "PoolOps",
    "PoolSpec",
    "PreparedConv",
    "ProductOps",
    "TensorOps",
    "Tiling",
    "VectorOps",
    "attach",
]

A = TypeVar("A")

#: Names of all families; a back-end that lacks one has a tuple of its own.
FAMILIES: tuple[str, ...] = (
    "vectors",
    "products",
    "conv",
    "pointwise",
    "pool",
    "tensor",
    "attention",
)


class Kernels(
    VectorOps[A],
    ProductOps[A],
    ConvOps[A],
    PoolOps[A],
    PointwiseOps[A],
    TensorOps[A],
    AttentionOps[A],
    Protocol[A],
):
    """One back-end.

    A back-end is a module with these functions; mypy compares each module with this
    class, so an op that is missing or differs in one place never ships.
    """

    @property
    def DEVICE(self) -> DeviceMemory[Any] | None:  # noqa: N802 - a module's constant
        """Where its arrays lie; None for NumPy's."""
        ...

    @property
    def PLANES(self) -> np.dtype[Any]:  # noqa: N802 - a module's constant
        """Type of the elements of planes: float32, float16, or uint16 that holds the
        bits of bfloat16.
        """
        ...

    @property
    def FAMILIES(self) -> tuple[str, ...]:  # noqa: N802 - a module's constant
        """Names of the families that this back-end has."""
        ...
