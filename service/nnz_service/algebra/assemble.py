"""CSR from the arrays of every sparse format, checked before anything is converted.

SciPy's own conversions crash on bad structure, and some of its formats have none that
is safe: what comes in is looked at first, or converted by NumPy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from nnz_kernels.arrays import HostArray
from nnz_kernels.convert import as_entries, csr_from_scipy
from nnz_kernels.formats import Csr
from nnz_service.errors import InvalidMatrixError

#: Members of each SciPy format, beside ``format`` and ``shape``; the entries last.
MEMBERS = {
    "csr": ("indptr", "indices", "data"),
    "csc": ("indptr", "indices", "data"),
    "coo": ("row", "col", "data"),
    "bsr": ("indptr", "indices", "data"),
    "dia": ("offsets", "data"),
}


def assembled(
    kind: str, shape: tuple[int, int], arrays: list[HostArray]
) -> Csr[HostArray]:
    """Return the matrix of the `MEMBERS` of a format; duplicates of COO are summed.

    Raises:
        InvalidMatrixError, KernelError: What is wrong with the arrays.
    """
    if kind == "dia":
        return _from_dia(shape, *arrays)
    first, second, data = arrays
    if kind == "bsr":
        return _from_bsr(shape, first, second, data)
    if kind == "coo":
        return csr_from_coo(shape, first, second, data)
    straight = shape if kind == "csr" else (shape[1], shape[0])
    checked = checked_csr(first, second, as_entries(data), straight)
    if kind == "csr":
        return checked
    parts = (checked.data, checked.indices, checked.indptr)
    return csr_from_scipy(scipy.sparse.csc_array(parts, shape=shape))


def checked_csr(
    indptr: HostArray, indices: HostArray, data: HostArray, shape: tuple[int, int]
) -> Csr[HostArray]:
    """Return CSR with pointers and indices of one type, or raise a KernelError."""
    if {indptr.dtype, indices.dtype} == {np.dtype(np.int32), np.dtype(np.int64)}:
        indptr, indices = indptr.astype(np.int64), indices.astype(np.int64)
    out = Csr(indptr, indices, data, shape)
    out.check()
    return out


def csr_from_coo(
    shape: tuple[int, int], rows: HostArray, columns: HostArray, data: HostArray
) -> Csr[HostArray]:
    """Return CSR, rows sorted, of coordinates; duplicates are summed.

    Args:
        shape: Rows, columns.
        rows: Integers (nnz,).
        columns: Integers (nnz,).
        data: Entries (nnz,).

    Raises:
        InvalidMatrixError: The first coordinate that lies outside, or arrays that do
            not fit together.
        KernelError: The entries are no numbers.
    """
    data = as_entries(data)
    for name, part, size in (("row", rows, shape[0]), ("col", columns, shape[1])):
        if part.shape != data.shape or part.ndim != 1 or part.dtype.kind not in "iu":
            raise InvalidMatrixError(
                f"{name} is {part.dtype} of shape {list(part.shape)}, but must be "
                f"integers of shape {list(data.shape)}"
            )
        outside = (part < 0) | (part >= size)
        if outside.any():
            at = int(np.argmax(outside))
            raise InvalidMatrixError(
                f"{name}[{at}] is {part[at]}, but must be from 0 to {size - 1}"
            )
    rows, columns = (x.astype(np.int64, copy=False) for x in (rows, columns))
    return csr_from_scipy(scipy.sparse.coo_array((data, (rows, columns)), shape=shape))


def _from_bsr(
    shape: tuple[int, int], indptr: HostArray, indices: HostArray, data: HostArray
) -> Csr[HostArray]:
    """Lay the blocks out; their zeros are stored, as they were."""
    height, width = data.shape[1:] if data.ndim == 3 else (0, 0)
    if not height or not width or shape[0] % height or shape[1] % width:
        raise InvalidMatrixError(
            f"data has shape {list(data.shape)}, but must be [blocks, r, c] where r "
            f"and c divide the shape {list(shape)}"
        )
    ones = np.ones(data.shape[0])
    blocks = checked_csr(indptr, indices, ones, (shape[0] // height, shape[1] // width))
    above = np.repeat(np.arange(blocks.shape[0]), np.diff(blocks.indptr))
    row = above[:, None, None] * height + np.arange(height)[:, None]
    column = blocks.indices.astype(np.int64)[:, None, None] * width + np.arange(width)
    rows = np.broadcast_to(row, data.shape).reshape(-1)
    columns = np.broadcast_to(column, data.shape).reshape(-1)
    return csr_from_coo(shape, rows, columns, data.reshape(-1))


def _from_dia(
    shape: tuple[int, int], offsets: HostArray, data: HostArray
) -> Csr[HostArray]:
    """Keep the nonzeros of the diagonals that lie in the matrix."""
    fits = offsets.ndim == 1 and data.ndim == 2 and len(offsets) == len(data)
    if not fits or offsets.dtype.kind not in "iu":
        raise InvalidMatrixError(
            f"offsets is {offsets.dtype} of shape {list(offsets.shape)} and data of "
            f"shape {list(data.shape)}, but must be integers [k] and [k, columns]"
        )
    if np.unique(offsets).size < offsets.size:
        raise InvalidMatrixError("offsets names a diagonal twice")
    diagonal, column = np.nonzero(data)
    row = column - _clipped(offsets, shape)[diagonal]
    inside = (row >= 0) & (row < shape[0]) & (column < shape[1])
    values: Any = data[diagonal, column]
    return csr_from_coo(shape, row[inside], column[inside], values[inside])


def _clipped(offsets: HostArray, shape: tuple[int, int]) -> HostArray:
    """Return offsets as int64 that nothing can overflow; those outside stay outside."""
    low, high = -shape[0] - shape[1], shape[0] + shape[1]
    if offsets.dtype.kind == "u":
        return np.minimum(offsets, np.uint64(high)).astype(np.int64)
    return np.clip(offsets.astype(np.int64), low, high)
