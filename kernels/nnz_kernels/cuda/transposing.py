"""The transpose of a sparse matrix, for the ops that need one."""

from __future__ import annotations

import numpy as np

from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import Device
from nnz_kernels.cuda.family import types_of
from nnz_kernels.cuda.sorting import bits_of, check_count, launch_flat, sort_pairs
from nnz_kernels.formats import Csr


def transposed(
    device: Device, a: Csr[DeviceArray], *, conjugate: bool = False
) -> Csr[DeviceArray]:
    """Return the transpose; each row of it is in the order of the rows of *a*.

    Raises:
        DeviceLimitError: There are 2**31 entries or more.
    """
    (rows, columns), nnz = a.shape, a.nnz
    check_count(nnz, "a matrix to transpose")
    values, indices = types_of(a.data, a.indices)
    keys = device.empty((nnz,), np.uint64)
    numbers = device.empty((nnz,), np.int32)
    fill = registry.find("transpose_keys", indices)
    launch_flat(device, fill, nnz, nnz, a.indices, keys, numbers)
    keys, numbers = sort_pairs(device, keys, numbers, bits_of(columns))
    made = Csr(
        device.empty((columns + 1,), a.indptr.dtype),
        device.empty((nnz,), a.indices.dtype),
        device.empty((nnz,), a.data.dtype),
        (columns, rows),
    )
    launch_flat(
        device, registry.find("transpose_fill", values, indices),
        max(nnz, columns + 1), rows, columns, nnz, int(conjugate), a.indptr, a.data,
        keys, numbers, made.indptr, made.indices, made.data,
    )  # fmt: skip
    return made
