"""Products, the slow and obvious way."""

from __future__ import annotations

import numpy as np

from nnz_kernels.api.products import check_product
from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr


def spmv(
    a: Csr[HostArray], x: HostArray, /, *, threads: int | None = None
) -> HostArray:
    check_product(a, x, ndim=1, transposed=False)
    return _multiply(a, x[:, None])[:, 0].copy()


def spmv_t(
    a: Csr[HostArray], y: HostArray, /, *, threads: int | None = None
) -> HostArray:
    check_product(a, y, ndim=1, transposed=True)
    return _multiply_transposed(a, y[:, None])[:, 0].copy()


def spmm(
    a: Csr[HostArray], x: HostArray, /, *, threads: int | None = None
) -> HostArray:
    check_product(a, x, ndim=2, transposed=False)
    return _multiply(a, x)


def spmm_t(
    a: Csr[HostArray], y: HostArray, /, *, threads: int | None = None
) -> HostArray:
    check_product(a, y, ndim=2, transposed=True)
    return _multiply_transposed(a, y)


def _multiply(a: Csr[HostArray], x: HostArray) -> HostArray:
    out = np.zeros((a.shape[0], x.shape[1]), np.float64)
    with np.errstate(all="ignore"):  # NaN and infinity are values like any other
        for i in range(a.shape[0]):
            for p in range(a.indptr[i], a.indptr[i + 1]):
                out[i] += np.float64(a.data[p]) * x[a.indices[p]]
        return out.astype(x.dtype)


def _multiply_transposed(a: Csr[HostArray], y: HostArray) -> HostArray:
    out = np.zeros((a.shape[1], y.shape[1]), np.float64)
    with np.errstate(all="ignore"):
        for i in range(a.shape[0]):
            for p in range(a.indptr[i], a.indptr[i + 1]):
                out[a.indices[p]] += np.float64(a.data[p]) * y[i]
        return out.astype(y.dtype)
