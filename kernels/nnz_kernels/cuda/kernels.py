"""The back-end as one object: every family on one device."""

from __future__ import annotations

from nnz_kernels.cuda.attention import Attention
from nnz_kernels.cuda.conv import Convolutions
from nnz_kernels.cuda.device import Device
from nnz_kernels.cuda.pointwise import Pointwise
from nnz_kernels.cuda.pool import Pools
from nnz_kernels.cuda.products import Products
from nnz_kernels.cuda.tensor import Tensors
from nnz_kernels.cuda.vectors import Vectors


class CudaKernels(
    Vectors, Products, Convolutions, Pools, Pointwise, Tensors, Attention
):
    """The ops of `nnz_kernels.api.Kernels` on arrays of one device."""

    FAMILIES: tuple[str, ...] = (
        "vectors",
        "products",
        "conv",
        "pointwise",
        "pool",
        "tensor",
        "attention",
    )

    @property
    def DEVICE(self) -> Device:  # noqa: N802 - a module's constant elsewhere
        """Where its arrays lie."""
        return self.device
