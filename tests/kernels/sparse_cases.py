"""Matrices for tests of ops between sparse matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr

#: Empty matrices, empty rows and columns, one row, one column, odd sizes.
SHAPES = [(0, 0), (0, 5), (4, 0), (1, 1), (1, 90), (90, 1), (33, 65), (130, 71)]


def numbers(shape: Any, dtype: Any, seed: int = 3) -> HostArray:
    """Return random numbers, both parts of complex ones."""
    rng = np.random.default_rng(seed)
    out = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        out = out + 1j * rng.standard_normal(shape)
    return np.asarray(out).astype(dtype)


def matrix(
    shape: tuple[int, int],
    dtype: Any = np.float64,
    index: Any = np.int32,
    density: float = 0.15,
    seed: int = 7,
) -> Csr[HostArray]:
    """Return a canonical matrix whose rows are of very different lengths."""
    rng = np.random.default_rng(seed)
    share = rng.random((shape[0], 1)) * 2 * density * (rng.random((shape[0], 1)) < 0.8)
    there = rng.random(shape) < share
    rows, columns = np.nonzero(there)
    indptr = np.searchsorted(rows, np.arange(shape[0] + 1))
    data = numbers(rows.size, dtype, seed + 1)
    return Csr(indptr.astype(index), columns.astype(index), data, shape)


def of(dense: Any, dtype: Any = np.float64) -> Csr[HostArray]:
    """Return a dense matrix with a stored zero left out."""
    array = np.array(dense, dtype)
    rows, columns = np.nonzero(array)
    indptr = np.searchsorted(rows, np.arange(array.shape[0] + 1))
    return Csr(
        indptr.astype(np.int32), columns.astype(np.int32), array[rows, columns],
        (array.shape[0], array.shape[1]),
    )  # fmt: skip


def dense(a: Csr[HostArray]) -> HostArray:
    """Return all entries of a small matrix, duplicates added up."""
    out = np.zeros(a.shape, a.data.dtype)
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    np.add.at(out, (rows, a.indices), a.data)
    return out


def same(found: Csr[HostArray], wanted: Csr[HostArray]) -> None:
    """Compare two matrices: pattern and types exactly, values to a few digits."""
    found.check()
    assert found.shape == wanted.shape
    assert found.indices.dtype == found.indptr.dtype == wanted.indices.dtype
    assert found.data.dtype == wanted.data.dtype
    np.testing.assert_array_equal(found.indptr, wanted.indptr)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    close(found.data, wanted.data)


def close(found: HostArray, wanted: HostArray) -> None:
    """Compare values to a few digits of their type."""
    assert found.dtype == wanted.dtype
    tolerance = 2e-4 if found.dtype == np.float32 else 1e-9
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def bits(*found: Csr[HostArray]) -> list[bytes]:
    """Return matrices as bytes, to be compared."""
    return [x.tobytes() for a in found for x in (a.indptr, a.indices, a.data)]
