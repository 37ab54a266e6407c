"""The back-end as one object: every family on one device."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnz_kernels.api import FAMILIES
from nnz_kernels.cuda.attention import Attention
from nnz_kernels.cuda.conv import Convolutions
from nnz_kernels.cuda.dense import Dense
from nnz_kernels.cuda.device import Device
from nnz_kernels.cuda.pointwise import Pointwise
from nnz_kernels.cuda.pool import Pools
from nnz_kernels.cuda.products import Products
from nnz_kernels.cuda.saddle import Saddle
from nnz_kernels.cuda.sparse import Sparse
from nnz_kernels.cuda.tensor import Tensors
from nnz_kernels.cuda.vectors import Vectors
from nnz_kernels.errors import BackendUnavailableError


class CudaKernels(
    Vectors,
    Products,
    Convolutions,
    Pools,
    Pointwise,
    Tensors,
    Attention,
    Sparse,
    Saddle,
    Dense,
):
    """The ops of `nnz_kernels.api.Kernels` on arrays of one device, and the families of
    algebra that stand beside them.
    """

    FAMILIES = FAMILIES

    @property
    def PLANES(self) -> np.dtype[Any]:  # noqa: N802 - a module's constant elsewhere
        """Type of the elements of planes."""
        return self.planes

    def with_precision(self, precision: str) -> CudaKernels:
        """Return kernels on the same device with planes of another precision.

        Raises:
            BackendUnavailableError: The device has no instructions for it.
        """
        capability = self.device.launcher.describe()["compute_capability"]
        if precision == "bf16" and int(capability.split(".")[0]) < 8:
            raise BackendUnavailableError(
                f"bf16 needs a compute capability of 8.0, this device has {capability}"
            )
        return CudaKernels(self.device, precision)

    @property
    def DEVICE(self) -> Device:  # noqa: N802 - a module's constant elsewhere
        """Where its arrays lie."""
        return self.device
