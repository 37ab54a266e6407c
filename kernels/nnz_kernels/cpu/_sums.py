"""What the ways to add two sparse vectors share."""

from __future__ import annotations

import numba

from nnz_kernels.cpu._runtime import SERIAL

#: What a way returns that cannot add operands with an index twice.
DUPLICATES = -1


@numba.njit(**SERIAL)
def drop_zeros(oi, ov, count):  # type: ignore[no-untyped-def]
    """Close the gaps that zeros leave among *count* entries; return how many stay."""
    kept = 0
    for p in range(count):
        if ov[p] != 0:
            oi[kept] = oi[p]
            ov[kept] = ov[p]
            kept += 1
    return kept


@numba.njit(**SERIAL)
def put(values, out):  # type: ignore[no-untyped-def]
    """Copy to the front of *out*: half the time of numba's own assignment."""
    for p in range(values.size):
        out[p] = values[p]


@numba.njit(**SERIAL)
def put_scaled(r, values, out):  # type: ignore[no-untyped-def]
    """Write ``r * values`` to the front of *out*."""
    for p in range(values.size):
        out[p] = r * values[p]
