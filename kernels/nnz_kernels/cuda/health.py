"""A product with a known answer: library, driver, compiler and kernels at once."""

from __future__ import annotations

import numpy as np

from nnz_kernels.cuda.kernels import CudaKernels
from nnz_kernels.errors import BackendUnavailableError
from nnz_kernels.formats import Csr

#: Least compute capability that every kernel is compiled for in the tests.
LEAST = (7, 5)


def check_device(kernels: CudaKernels) -> None:
    """Multiply [[0, 2], [3, -1]] by [1, 10].

    Raises:
        BackendUnavailableError: The device is too old, or the answer is wrong.
        DeviceError: A step fails.
    """
    device = kernels.device
    capability = device.launcher.describe()["compute_capability"]
    if tuple(map(int, capability.split("."))) < LEAST:
        raise BackendUnavailableError(
            f"a compute capability of {capability} is below 7.5, the least that the "
            "kernels are compiled for"
        )
    matrix = Csr(
        device.to_device(np.array([0, 1, 3], np.int32)),
        device.to_device(np.array([1, 0, 1], np.int32)),
        device.to_device(np.array([2, 3, -1], np.float32)),
        (2, 2),
    )
    x = device.to_device(np.array([1, 10], np.float32))
    found = device.to_host(kernels.spmv(matrix, x)).tolist()
    if found != [20.0, -7.0]:
        raise BackendUnavailableError(
            f"a product with a known answer gave {found}, not [20.0, -7.0]"
        )
