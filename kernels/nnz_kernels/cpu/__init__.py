"""The CPU back-end: numba kernels for every core.

Importing it imports numba. Compiled code is kept in NUMBA_CACHE_DIR, or else in the
user's cache folder; set it with `nnz_kernels.backends.use_cache` before that.
"""

import numpy as np

from nnz_kernels.api import FAMILIES
from nnz_kernels.cpu import _runtime  # noqa: F401 - sets what numba reads on import
from nnz_kernels.cpu.attention import attention_planes, layer_norm_planes
from nnz_kernels.cpu.conv import identity, prepare_conv, tilings
from nnz_kernels.cpu.pointwise import (
    add_planes,
    channel_affine,
    from_planes,
    from_tokens,
    prelu,
    to_planes,
    to_tokens,
    unary,
    zero_border,
)
from nnz_kernels.cpu.pool import average_pool, global_average_pool, max_pool
from nnz_kernels.cpu.products import spmm, spmm_t, spmv, spmv_t
from nnz_kernels.cpu.saddle import halpern_pdhg
from nnz_kernels.cpu.tensor import (
    binary,
    copy,
    fill,
    layer_norm,
    log_softmax,
    matmul,
    reduce,
    softmax,
)
from nnz_kernels.cpu.vectors import (
    axpy,
    axpy_many,
    combine,
    dot,
    dot_many,
    gather,
    scatter,
)

#: Arrays are NumPy's, in the memory of the host.
DEVICE = None

#: Type of the elements of planes.
PLANES = np.dtype(np.float32)

__all__ = [
    "DEVICE",
    "FAMILIES",
    "PLANES",
    "add_planes",
    "attention_planes",
    "average_pool",
    "axpy",
    "axpy_many",
    "binary",
    "channel_affine",
    "combine",
    "copy",
    "dot",
    "dot_many",
    "fill",
    "from_planes",
    "from_tokens",
    "gather",
    "global_average_pool",
    "halpern_pdhg",
    "identity",
    "layer_norm",
    "layer_norm_planes",
    "log_softmax",
    "matmul",
    "max_pool",
    "prelu",
    "prepare_conv",
    "reduce",
    "scatter",
    "softmax",
    "spmm",
    "spmm_t",
    "spmv",
    "spmv_t",
    "tilings",
    "to_planes",
    "to_tokens",
    "unary",
    "zero_border",
]
