"""The CPU back-end: numba kernels for every core.

Importing it imports numba. Compiled code is kept in NUMBA_CACHE_DIR, or else in the
user's cache folder; set it with `nnz_kernels.backends.use_cache` before that.
"""

from nnz_kernels.cpu.conv import prepare_conv
from nnz_kernels.cpu.products import spmm, spmm_t, spmv, spmv_t
from nnz_kernels.cpu.vectors import (
    axpy,
    axpy_many,
    combine,
    dot,
    dot_many,
    gather,
    scatter,
)

FAMILIES: tuple[str, ...] = ("vectors", "products", "conv")

__all__ = [
    "FAMILIES",
    "axpy",
    "axpy_many",
    "combine",
    "dot",
    "dot_many",
    "gather",
    "prepare_conv",
    "scatter",
    "spmm",
    "spmm_t",
    "spmv",
    "spmv_t",
]
