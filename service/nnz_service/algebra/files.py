"""Matrix files by media type; every fault becomes a typed error."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.convert import as_entries, canonical
from nnz_kernels.errors import KernelError
from nnz_kernels.formats import MAX_SIZE, Csr
from nnz_service.algebra.assemble import checked_csr, csr_from_coo
from nnz_service.algebra.limits import Limits
from nnz_service.algebra.matrix_market import read_matrix_market
from nnz_service.algebra.npz import read_npz
from nnz_service.algebra.resident import read_resident, write_resident, write_values
from nnz_service.errors import InvalidMatrixError, UnsupportedMediaError

__all__ = [
    "MATRIX_MARKET",
    "NPZ",
    "Limits",
    "canonical",
    "csr_from_arrays",
    "csr_from_triplets",
    "read_matrix",
    "read_resident",
    "write_resident",
    "write_values",
]

NPZ = ("application/x-npz",)
#: Plain or gzip: the first two bytes tell.
MATRIX_MARKET = (
    "text/x-matrix-market",
    "application/x-matrix-market",
    "application/gzip",
)


def read_matrix(
    path: str | os.PathLike[str], media_type: str, limits: Limits | None = None
) -> Csr[HostArray]:
    """Return the checked matrix of an uploaded file.

    Args:
        path: The file.
        media_type: One of `NPZ` or `MATRIX_MARKET`, parameters allowed.
        limits: Sizes that may be declared.

    Raises:
        UnsupportedMediaError: The media type is none of them.
        InvalidMatrixError: What is wrong and where.
        TooLargeError: The file declares more than a limit.
    """
    limits = limits or Limits()
    kind = media_type.split(";")[0].strip().lower()
    if kind in NPZ:
        return read_npz(path, limits)
    if kind in MATRIX_MARKET:
        return read_matrix_market(path, limits)
    allowed = ", ".join(NPZ + MATRIX_MARKET)
    raise UnsupportedMediaError(f"{kind!r} is no matrix file; send one of {allowed}")


def csr_from_arrays(
    indptr: HostArray,
    indices: HostArray,
    data: HostArray,
    shape: Any,
    limits: Limits | None = None,
) -> Csr[HostArray]:
    """Return a checked matrix of raw arrays; integer and boolean data become float64.

    Args:
        indptr: Row pointers (m + 1,), int32 or int64.
        indices: Column indices (nnz,), int32 or int64.
        data: Entries (nnz,); complex64 becomes complex128.
        shape: Two integers, [m, n].
        limits: Sizes that may be declared.
    """
    sizes = _sizes(shape, data, limits)
    try:
        return checked_csr(
            np.ascontiguousarray(indptr),
            np.ascontiguousarray(indices),
            as_entries(np.ascontiguousarray(data)),
            sizes,
        )
    except KernelError as exc:
        raise InvalidMatrixError(str(exc)) from exc


def csr_from_triplets(
    row: HostArray,
    col: HostArray,
    data: HostArray,
    shape: Any,
    limits: Limits | None = None,
) -> Csr[HostArray]:
    """Return the checked matrix of coordinates in any order; duplicates are summed.

    Args:
        row: Row of each entry (nnz,), integers from 0.
        col: Column of each entry (nnz,), integers from 0.
        data: Entries (nnz,); as for `csr_from_arrays`.
        shape: Two integers, [m, n].
        limits: Sizes that may be declared.
    """
    sizes = _sizes(shape, data, limits)
    try:
        return csr_from_coo(sizes, row, col, data)
    except KernelError as exc:
        raise InvalidMatrixError(str(exc)) from exc


def _sizes(shape: Any, data: HostArray, limits: Limits | None) -> tuple[int, int]:
    whole = isinstance(shape, list | tuple) and len(shape) == 2
    if not whole or not all(
        isinstance(size, int | np.integer)
        and not isinstance(size, bool)
        and 0 <= size <= MAX_SIZE
        for size in shape
    ):
        raise InvalidMatrixError(
            f"shape is {shape!r}, but must be [rows, columns], each from 0 to 2**53"
        )
    rows, columns = int(shape[0]), int(shape[1])
    (limits or Limits()).check_declared(rows, columns, data.size)
    return rows, columns
