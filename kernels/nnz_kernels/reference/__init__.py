"""The reference back-end: numpy, slow and obvious; it says what is right."""

from nnz_kernels.reference.products import spmm, spmm_t, spmv, spmv_t
from nnz_kernels.reference.vectors import (
    axpy,
    axpy_many,
    combine,
    dot,
    dot_many,
    gather,
    scatter,
)

FAMILIES: tuple[str, ...] = ("vectors", "products")

__all__ = [
    "FAMILIES",
    "axpy",
    "axpy_many",
    "combine",
    "dot",
    "dot_many",
    "gather",
    "scatter",
    "spmm",
    "spmm_t",
    "spmv",
    "spmv_t",
]
