"""Matrices and sparse vectors of scipy, or in files, made ready to be sent.

What objects of scipy can do is enough; it is imported only to make one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from nnz._content import Content, of_file
from nnz._models import SparseVector
from nnz._tensors import Array, encode

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CSR_TYPE = "application/x-nnz-csr"
_FILE_TYPES: Mapping[str, dict[str, str]] = {
    ".npz": {"Content-Type": "application/x-npz"},
    ".mtx": {"Content-Type": "text/x-matrix-market"},
    ".mtx.gz": {"Content-Type": "text/x-matrix-market", "Content-Encoding": "gzip"},
    ".mps": {"Content-Type": "application/x-mps"},
    ".mps.gz": {"Content-Type": "application/x-mps"},
}


@runtime_checkable
class ScipyMatrix(Protocol):
    """Any sparse matrix or array of scipy."""

    @property
    def shape(self) -> Any:
        """Rows, columns."""
        ...

    def tocsr(self) -> Any:
        """The same matrix in compressed rows."""
        ...


MatrixSource = ScipyMatrix | str | os.PathLike[str]
#: What axpy and dot take: pairs, one of ours, or a scipy row, column or 1-D array.
VectorSource = SparseVector | tuple[ArrayLike, ArrayLike] | Any


def upload(source: MatrixSource) -> tuple[dict[str, str], Content]:
    """Headers and body that put a matrix on the server.

    Raises:
        TypeError: Not a scipy matrix and not a path, or values of a type that has no
            place on the server.
        ValueError: A one-dimensional array, or a file whose name does not end in
            .npz, .mtx, .mtx.gz, .mps or .mps.gz.
    """
    if isinstance(source, str | os.PathLike):
        return file_headers(Path(source)), of_file(Path(source))
    if not isinstance(source, ScipyMatrix):
        raise TypeError(
            f"a matrix is a scipy.sparse matrix or the path of a .npz, .mtx or .mtx.gz "
            f"file, not {type(source).__name__}; for a dense array use "
            "scipy.sparse.csr_array(array)"
        )
    if len(source.shape) != 2:
        raise ValueError(f"a matrix has two dimensions, not {len(source.shape)}")
    csr = _canonical(source)
    headers, content = encode(
        {"indptr": csr.indptr, "indices": csr.indices, "data": entries(csr.data)},
        parameters={"shape": [int(extent) for extent in csr.shape]},
        entries=True,
    )
    return {**headers, "Content-Type": CSR_TYPE}, content


def values(source: ScipyMatrix | ArrayLike) -> tuple[Array, str | None]:
    """Values in stored order, and the digest of their places if they have any.

    Real values are ``(nnz,)``; of complex ones the parts are ``(nnz, 2)``.
    """
    if isinstance(source, ScipyMatrix):
        csr = _canonical(source)
        data, pattern = entries(csr.data), _digest(csr)
    else:
        data, pattern = entries(source), None
    if data.dtype.kind == "c":
        data = data.astype(np.complex128).view(np.float64).reshape(-1, 2)
    return data, pattern


def _canonical(source: ScipyMatrix) -> Any:
    """CSR with sorted rows and no duplicates; the caller's matrix stays as it was."""
    csr = source.tocsr()
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    return csr


def _digest(csr: Any) -> str:
    """The server's digest of where entries are stored."""
    fits = max(*csr.shape, csr.nnz) < 2**31
    found = hashlib.sha256(np.array(csr.shape, "<i8").tobytes())
    for part in (csr.indptr, csr.indices):
        found.update(part.astype("<i4" if fits else "<i8").tobytes())
    return found.hexdigest()[:32]


def entries(values: ArrayLike) -> Array:
    """The entries of a matrix as float32, float64 or complex, whichever holds them.

    Raises:
        TypeError: Objects or text.
    """
    array = np.asarray(values)
    if array.dtype in (np.complex64, np.complex128):
        return array
    return floats(array)


def file_headers(path: Path) -> dict[str, str]:
    """Headers that go with a matrix file.

    Raises:
        ValueError: Its name does not end in .npz, .mtx, .mtx.gz, .mps or
            .mps.gz.
    """
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    headers = _FILE_TYPES.get(suffix)
    if headers is None:
        raise ValueError(
            f"{path.name}: the name of a matrix file ends in {', '.join(_FILE_TYPES)}"
        )
    return dict(headers)


def floats(values: ArrayLike) -> Array:
    """The values as float32 or float64, whichever holds them.

    Raises:
        TypeError: Complex numbers, objects or text.
        ValueError: A whole number beyond 2**53 that neither holds.
    """
    array = np.asarray(values)
    if array.dtype in (np.float32, np.float64):
        return array
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind in "biu":
        return _exact(array)
    raise TypeError(f"values are real numbers of up to 64 bits, not {array.dtype}")


def _exact(array: Array) -> Array:
    held = array.astype(np.float64)
    for value in array[np.abs(held) >= 2.0**53].tolist():
        if int(float(value)) != value:
            raise ValueError(
                f"values are sent as float64, which does not hold {value}; round them "
                "first: array.astype(float)"
            )
    return held


def pairs(source: VectorSource, name: str) -> SparseVector:
    """A sparse vector from whatever the caller has; the order of pairs is kept.

    Raises:
        TypeError: Neither pairs nor a scipy vector.
        ValueError: A matrix with more than one row and column, or lengths that differ.
    """
    indices: ArrayLike
    values: ArrayLike
    size: int | None
    if isinstance(source, SparseVector):
        indices, values, size = source.indices, source.values, source.size
    elif hasattr(source, "tocoo"):
        indices, values, size = _scipy_vector(source, name)
    elif isinstance(source, tuple | list) and len(source) == 2:
        indices, values, size = source[0], source[1], None
    else:
        raise TypeError(
            f"{name} is a pair (indices, values), a SparseVector or a scipy sparse "
            f"vector, not {type(source).__name__}"
        )
    vector = SparseVector(_indices(indices, name), floats(values), size)
    if vector.indices.shape != vector.values.shape or vector.values.ndim != 1:
        raise ValueError(
            f"{name} has {vector.indices.shape} indices and {vector.values.shape} "
            "values; both are one-dimensional and of one length"
        )
    return vector


def _indices(indices: ArrayLike, name: str) -> Array:
    array = np.asarray(indices)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"the indices of {name} are integers, not {array.dtype}")
    if array.dtype == np.uint64 and array.max() >= 2**63:
        raise ValueError(
            f"the indices of {name} go up to {array.max()}, but must be below 2**53"
        )
    return array if array.dtype == np.int32 else array.astype(np.int64)


def _scipy_vector(source: Any, name: str) -> tuple[Array, Array, int]:
    coo = source.tocoo()
    if coo.ndim == 1:
        return coo.coords[0], coo.data, coo.shape[0]
    rows, columns = coo.shape
    if rows != 1 and columns != 1:
        raise ValueError(
            f"{name} has shape {coo.shape}; a vector has one row or column"
        )
    return (coo.row, coo.data, rows) if columns == 1 else (coo.col, coo.data, columns)


def to_scipy(
    parts: tuple[Array, Array, Array],
    shape: tuple[int, int],
    transposed: bool,
    conjugated: bool,
) -> csr_array[Any]:
    """A scipy csr_array of data, indices and indptr; needs scipy.

    Args:
        parts: Of the stored matrix.
        shape: Of the stored matrix.
        transposed: The transpose of it is wanted.
        conjugated: The conjugate entries are wanted.
    """
    from scipy.sparse import csr_array

    found: csr_array[Any] = csr_array(parts, shape=shape)
    if transposed:
        found = found.T.tocsr()
    return found.conj() if conjugated else found
