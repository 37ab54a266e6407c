"""Products, the slow and obvious way."""

from __future__ import annotations

from typing import Any

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
    a: Csr[HostArray],
    y: HostArray,
    /,
    *,
    conjugate: bool = False,
    threads: int | None = None,
) -> HostArray:
    check_product(a, y, ndim=1, transposed=True)
    return _multiply_transposed(a, y[:, None], conjugate=conjugate)[:, 0].copy()


def spmm(
    a: Csr[HostArray], x: HostArray, /, *, threads: int | None = None
) -> HostArray:
    check_product(a, x, ndim=2, transposed=False)
    return _multiply(a, x)


def spmm_t(
    a: Csr[HostArray],
    y: HostArray,
    /,
    *,
    conjugate: bool = False,
    threads: int | None = None,
) -> HostArray:
    check_product(a, y, ndim=2, transposed=True)
    return _multiply_transposed(a, y, conjugate=conjugate)


def _multiply(a: Csr[HostArray], x: HostArray) -> HostArray:
    out = np.zeros((a.shape[0], x.shape[1]), _wide(x))
    with np.errstate(all="ignore"):  # NaN and infinity are values like any other
        for i in range(a.shape[0]):
            for p in range(a.indptr[i], a.indptr[i + 1]):
                out[i] += a.data[p].astype(out.dtype) * x[a.indices[p]]
        return out.astype(x.dtype)


def _multiply_transposed(
    a: Csr[HostArray], y: HostArray, *, conjugate: bool
) -> HostArray:
    out = np.zeros((a.shape[1], y.shape[1]), _wide(y))
    with np.errstate(all="ignore"):
        for i in range(a.shape[0]):
            for p in range(a.indptr[i], a.indptr[i + 1]):
                value = np.conj(a.data[p]) if conjugate else a.data[p]
                out[a.indices[p]] += value.astype(out.dtype) * y[i]
        return out.astype(y.dtype)


def _wide(x: HostArray) -> np.dtype[Any]:
    """Return the type in which sums are taken."""
    return np.result_type(x.dtype, np.float64)
