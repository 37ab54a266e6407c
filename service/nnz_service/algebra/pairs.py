"""Complex numbers as pairs: tensors of the protocol know none.

Along a last axis of 2 lie the real and the imaginary part, both float64: in memory that
is the complex array itself.
"""

from __future__ import annotations

import numpy as np

from nnz_kernels.arrays import HostArray


def from_pairs(x: HostArray) -> HostArray:
    """Return the complex128 numbers (...) of real pairs (..., 2), maybe a view."""
    pairs = np.ascontiguousarray(x, np.float64)
    return pairs.view(np.complex128)[..., 0]


def to_pairs(z: HostArray) -> HostArray:
    """Return the pairs (..., 2), float64, of complex numbers (...), maybe a view."""
    whole = np.ascontiguousarray(z, np.complex128)
    return whole.view(np.float64).reshape(*z.shape, 2)
