"""Conversions between formats, dense arrays and SciPy; the only file that knows SciPy.

Entries that are exactly zero in a dense array are not stored; a NaN is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from nnz_kernels.arrays import FLOATS, HostArray
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.formats import BLOCKS, BlockCsr, Csr, Ragged, SparseVector

#: Largest value of an int32.
_INT32_MAX = np.iinfo(np.int32).max


def csr_from_scipy(a: Any) -> Csr[HostArray]:
    """Return a SciPy sparse matrix or array of any format as checked CSR.

    Entries become what `as_entries` says, shared where the format allows it. Indices
    become int32 where they fit.

    Raises:
        DTypeError: The entries are no numbers of up to 64 bits a part.
        StructureError: The arrays do not form a matrix.
    """
    if a.format == "csr":
        # SciPy's own methods crash on faulty structure, so ours looks first.
        _csr(a.indptr, a.indices, as_entries(a.data), a.shape).check()
    csr = a.tocsr()
    out = _csr(csr.indptr, csr.indices, as_entries(csr.data), csr.shape)
    out.check()
    return out


def csr_to_scipy(a: Csr[HostArray]) -> scipy.sparse.csr_array[Any]:
    """Return the same matrix as a SciPy array that shares the memory."""
    return scipy.sparse.csr_array((a.data, a.indices, a.indptr), shape=a.shape)


def csr_transposed(a: Csr[HostArray]) -> Csr[HostArray]:
    """Return ``a.T`` as CSR with sorted rows; duplicates stay."""
    t = csr_to_scipy(a).tocsc()
    return Csr(t.indptr, t.indices, t.data, (a.shape[1], a.shape[0]))


def csr_from_dense(dense: HostArray) -> Csr[HostArray]:
    """Return the nonzeros of a dense (m, n) float array, rows sorted."""
    if dense.ndim != 2:
        raise ShapeError(f"the array has {dense.ndim} axes, but a matrix has 2")
    data = as_float(dense)
    rows, columns = np.nonzero(data)
    counts = np.bincount(rows, minlength=dense.shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    shape = (int(dense.shape[0]), int(dense.shape[1]))
    return _csr(indptr, columns, data[rows, columns], shape)


def csr_to_dense(a: Csr[HostArray]) -> HostArray:
    """Return a dense (m, n) array; duplicates are summed."""
    out = np.zeros(a.shape, a.data.dtype)
    np.add.at(out, (_rows(a), a.indices), a.data)
    return out


def block_csr_from_csr(a: Csr[HostArray], block: int) -> BlockCsr[HostArray]:
    """Group the rows of *a* by *block*; a column used by one row is stored for all.

    Args:
        a: A matrix; duplicates are summed.
        block: Rows a block: 1, 2, 4, 8 or 16.
    """
    if block not in BLOCKS:
        raise ShapeError(f"block is {block}, but must be one of {BLOCKS}")
    rows = _rows(a)
    block_rows = rows // block
    order = np.lexsort((a.indices, block_rows))
    sorted_rows, columns = block_rows[order], a.indices[order]
    first = np.ones(order.size, bool)
    first[1:] = (np.diff(sorted_rows) != 0) | (np.diff(columns) != 0)
    place = np.cumsum(first) - 1
    data = np.zeros((int(first.sum()), block), a.data.dtype)
    np.add.at(data, (place, rows[order] % block), a.data[order])
    counts = np.bincount(sorted_rows[first], minlength=-(-a.shape[0] // block))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(a.indices.dtype)
    return BlockCsr(indptr, columns[first], data, a.shape, block)


def block_csr_from_dense(dense: HostArray, block: int) -> BlockCsr[HostArray]:
    """Return the blocks of a dense (m, n) float array that hold a nonzero."""
    return block_csr_from_csr(csr_from_dense(dense), block)


def block_csr_to_dense(a: BlockCsr[HostArray]) -> HostArray:
    """Return a dense (m, n) array."""
    padded = (a.indptr.size - 1) * a.block
    out = np.zeros((padded, a.shape[1]), a.data.dtype)
    block_rows = np.repeat(np.arange(a.indptr.size - 1), np.diff(a.indptr))
    for offset in range(a.block):
        where = block_rows * a.block + offset, a.indices
        np.add.at(out, where, a.data[:, offset])
    return out[: a.shape[0]]


def sparse_vector_from_dense(dense: HostArray) -> SparseVector[HostArray]:
    """Return the nonzeros of a dense vector, in order."""
    if dense.ndim != 1:
        raise ShapeError(f"the array has {dense.ndim} axes, but a vector has 1")
    data = as_float(dense)
    indices = np.nonzero(data)[0]
    return SparseVector(_narrow(indices, dense.size), data[indices], int(dense.size))


def sparse_vector_to_dense(u: SparseVector[HostArray]) -> HostArray:
    """Return a dense vector; duplicates are summed."""
    out = np.zeros(u.size, u.values.dtype)
    np.add.at(out, u.indices, u.values)
    return out


def ragged_from_scipy(a: Any) -> Ragged[HostArray]:
    """Return the rows of a SciPy matrix as many sparse vectors."""
    csr = csr_from_scipy(a)
    return Ragged(csr.indptr, csr.indices, csr.data, csr.shape[1])


def as_float(data: HostArray) -> HostArray:
    """Return float32 and float64 as they are, integers and booleans as float64.

    Raises:
        DTypeError: The type is complex, half precision or not a number.
    """
    if data.dtype in FLOATS and data.dtype.isnative:
        return data
    if data.dtype.kind in "biu" or data.dtype in FLOATS:
        return data.astype(np.float64 if data.dtype.kind in "biu" else data.dtype.char)
    raise DTypeError(
        f"the entries are {data.dtype}, but must be float32, float64, integer or bool"
    )


def as_entries(data: HostArray) -> HostArray:
    """Return complex entries as complex128, others as `as_float` does.

    Raises:
        DTypeError: The type is half or extended precision, or not a number.
    """
    if data.dtype in (np.complex64, np.complex128):
        return data.astype(np.complex128, copy=False)
    return as_float(data)


def canonical(a: Csr[HostArray]) -> Csr[HostArray]:
    """Return the same matrix in the one form that equal matrices share.

    Rows sorted, no column twice in a row (duplicates are summed), int32 indices where
    they fit. Stored zeros stay. *a* is returned where it has that form already.
    """
    if not a.is_sorted or a.has_duplicates:
        summed = csr_to_scipy(a).copy()
        summed.sum_duplicates()
        a = Csr(summed.indptr, summed.indices, summed.data, a.shape)
    return _csr(a.indptr, a.indices, a.data, a.shape)


def _rows(a: Csr[HostArray]) -> HostArray:
    return np.repeat(np.arange(a.shape[0], dtype=np.int64), np.diff(a.indptr))


def _narrow(indices: HostArray, limit: int) -> HostArray:
    if indices.dtype == np.int64 and limit <= _INT32_MAX:
        return indices.astype(np.int32)
    return indices


def _csr(
    indptr: HostArray, indices: HostArray, data: HostArray, shape: Any
) -> Csr[HostArray]:
    """Return CSR whose pointers and indices have one type, int32 where both fit."""
    sizes = int(shape[0]), int(shape[1])
    if max(*sizes, indices.size) <= _INT32_MAX and _fits(indices) and _fits(indptr):
        indptr = indptr.astype(np.int32, copy=False)
        indices = indices.astype(np.int32, copy=False)
    elif indptr.dtype != indices.dtype and indices.dtype.kind == "i":
        indptr, indices = indptr.astype(np.int64), indices.astype(np.int64)
    return Csr(
        np.ascontiguousarray(indptr),
        np.ascontiguousarray(indices),
        np.ascontiguousarray(data),
        sizes,
    )


def _fits(x: HostArray) -> bool:
    """Whether integers may be stored as int32 without a change."""
    if x.dtype.kind != "i" or x.size == 0:
        return x.dtype.kind == "i"
    return bool(x.min() >= -_INT32_MAX and x.max() <= _INT32_MAX)
