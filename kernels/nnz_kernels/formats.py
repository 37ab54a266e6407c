"""Sparse formats: plain containers and the checks that make kernels safe.

A kernel trusts its input, so ``check`` runs once, at the edge, on everything that
came from outside. It costs O(nnz) and finds every structural fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from nnz_kernels.arrays import ENTRIES, FLOATS, INDICES, HostArray
from nnz_kernels.errors import StructureError

A = TypeVar("A")
B = TypeVar("B")

#: Output rows that may share a column index in `BlockCsr`.
BLOCKS = (1, 2, 4, 8, 16)

#: Sizes beyond this are not exact in JSON numbers, and no machine holds them.
MAX_SIZE = 2**53


@dataclass(frozen=True, slots=True)
class SparseVector(Generic[A]):
    """Unsorted (index, value) pairs: entry *p* is ``values[p]`` at ``indices[p]``."""

    indices: A
    values: A
    size: int

    @property
    def nnz(self) -> int:
        """Stored entries, explicit zeros and duplicates included."""
        return _length(self.indices)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return _nbytes(self.indices, self.values)

    def map(self, move: Callable[[A], B], /) -> SparseVector[B]:
        """Return the same vector with each array moved, say to the device."""
        return SparseVector(move(self.indices), move(self.values), self.size)

    def check(self) -> None:
        """Raise StructureError unless the arrays form a vector."""
        _check_size("size", self.size)
        indices = _check_array("indices", self.indices, INDICES)
        values = _check_array("values", self.values, FLOATS)
        _check_lengths("indices", indices, "values", values)
        _check_range("indices", indices, self.size)

    @property
    def has_duplicates(self) -> bool:
        """Whether an index occurs twice; O(nnz log nnz)."""
        return np.unique(np.asarray(self.indices)).size < self.nnz


@dataclass(frozen=True, slots=True)
class Ragged(Generic[A]):
    """Many sparse vectors of one size: vector *k* owns ``indptr[k]:indptr[k + 1]``."""

    indptr: A
    indices: A
    values: A
    size: int

    @property
    def count(self) -> int:
        """How many vectors."""
        return _length(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """Stored entries of all vectors."""
        return _length(self.indices)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return _nbytes(self.indptr, self.indices, self.values)

    def map(self, move: Callable[[A], B], /) -> Ragged[B]:
        """Return the same vectors with each array moved."""
        moved = move(self.indptr), move(self.indices), move(self.values)
        return Ragged(*moved, self.size)

    def check(self) -> None:
        """Raise StructureError unless the arrays form vectors."""
        _check_size("size", self.size)
        indices = _check_array("indices", self.indices, INDICES)
        values = _check_array("values", self.values, FLOATS)
        _check_indptr(self.indptr, None, indices)
        _check_lengths("indices", indices, "values", values)
        _check_range("indices", indices, self.size)


@dataclass(frozen=True, slots=True)
class Csr(Generic[A]):
    """Compressed rows: row *i* owns ``data[indptr[i]:indptr[i + 1]]``.

    ``A`` is the array type of the back-end that holds the three arrays.
    """

    indptr: A
    indices: A
    data: A
    shape: tuple[int, int]

    @property
    def nnz(self) -> int:
        """Stored entries, explicit zeros and duplicates included."""
        return _length(self.indices)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return _nbytes(self.indptr, self.indices, self.data)

    def map(self, move: Callable[[A], B], /) -> Csr[B]:
        """Return the same matrix with each array moved, say to the device."""
        return Csr(move(self.indptr), move(self.indices), move(self.data), self.shape)

    def check(self) -> None:
        """Raise StructureError unless the arrays form a matrix."""
        rows, columns = _check_shape(self.shape)
        indices = _check_array("indices", self.indices, INDICES)
        data = _check_array("data", self.data, ENTRIES)
        _check_indptr(self.indptr, rows, indices)
        _check_lengths("indices", indices, "data", data)
        _check_range("indices", indices, columns)

    @property
    def is_sorted(self) -> bool:
        """Whether the column indices of every row never fall; O(nnz)."""
        return bool(np.all(self._steps() >= 0))

    @property
    def has_duplicates(self) -> bool:
        """Whether a row stores a column twice; O(nnz), O(nnz log nnz) if unsorted."""
        steps = self._steps()
        if np.all(steps >= 0):
            return bool(np.any(steps == 0))
        rows = np.repeat(np.arange(self.shape[0]), np.diff(np.asarray(self.indptr)))
        order = np.lexsort((np.asarray(self.indices), rows))
        columns = np.asarray(self.indices)[order]
        return bool(np.any((np.diff(columns) == 0) & (np.diff(rows[order]) == 0)))

    def _steps(self) -> HostArray:
        """Return each index minus its forerunner; 1 where a row begins."""
        indices = np.asarray(self.indices, np.int64)
        steps = np.ones(indices.size, np.int64)
        steps[1:] = np.diff(indices)
        starts = np.asarray(self.indptr)[:-1]
        steps[starts[starts < indices.size]] = 1
        return steps


@dataclass(frozen=True, slots=True)
class BlockCsr(Generic[A]):
    """Compressed rows of 1 x b blocks: b neighbouring rows share a column index.

    Block row *r* owns rows ``r * b .. r * b + b - 1`` and the blocks
    ``indptr[r]:indptr[r + 1]``; ``data`` has shape (blocks, b). When b does not divide
    the number of rows, the last block row is padded with zeros.
    """

    indptr: A
    indices: A
    data: A
    shape: tuple[int, int]
    block: int

    @property
    def nnz(self) -> int:
        """Stored entries, the zeros inside blocks included."""
        return _length(self.indices) * self.block

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return _nbytes(self.indptr, self.indices, self.data)

    def map(self, move: Callable[[A], B], /) -> BlockCsr[B]:
        """Return the same matrix with each array moved."""
        moved = move(self.indptr), move(self.indices), move(self.data)
        return BlockCsr(*moved, self.shape, self.block)

    def check(self) -> None:
        """Raise StructureError unless the arrays form a matrix."""
        rows, columns = _check_shape(self.shape)
        if self.block not in BLOCKS:
            raise StructureError(
                f"block is {self.block!r}, but must be one of {BLOCKS}"
            )
        indices = _check_array("indices", self.indices, INDICES)
        data = _check_array("data", self.data, FLOATS, ndim=2)
        _check_indptr(self.indptr, -(-rows // self.block), indices)
        if data.shape != (indices.size, self.block):
            raise StructureError(
                f"data has shape {data.shape}, but {indices.size} blocks of "
                f"{self.block} rows need {(indices.size, self.block)}"
            )
        _check_range("indices", indices, columns)
        _check_padding(np.asarray(self.indptr), data, rows, self.block)


def _length(x: Any) -> int:
    return int(x.shape[0])


def _nbytes(*arrays: Any) -> int:
    return sum(int(x.nbytes) for x in arrays)


def _check_size(name: str, size: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise StructureError(f"{name} is {size!r}, but must be an integer")
    if not 0 <= size <= MAX_SIZE:
        raise StructureError(f"{name} is {size}, but must be from 0 to 2**53")
    return int(size)


def _check_shape(shape: Any) -> tuple[int, int]:
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise StructureError(f"shape is {shape!r}, but must be (rows, columns)")
    return _check_size("shape[0]", shape[0]), _check_size("shape[1]", shape[1])


def _check_array(
    name: str, x: Any, dtypes: tuple[np.dtype[Any], ...], *, ndim: int = 1
) -> HostArray:
    if not isinstance(x, np.ndarray):
        raise StructureError(f"{name} is a {type(x).__name__}, but must be an array")
    if x.dtype not in dtypes or not x.dtype.isnative:
        wanted = " or ".join(str(d) for d in dtypes)
        raise StructureError(f"{name} has type {x.dtype}, but must be {wanted}")
    if x.ndim != ndim:
        raise StructureError(f"{name} has {x.ndim} axes, but must have {ndim}")
    if not x.flags.c_contiguous or not x.flags.aligned:
        raise StructureError(
            f"{name} has strides {x.strides}, but must be contiguous and aligned"
        )
    return x


def _check_lengths(first: str, a: HostArray, second: str, b: HostArray) -> None:
    if a.size != b.size:
        raise StructureError(
            f"{second} has {b.size} entries and {first} {a.size}, but must be equal"
        )


def _check_indptr(x: Any, rows: int | None, indices: HostArray) -> None:
    """Check row pointers: length, type, start, order, end."""
    indptr = _check_array("indptr", x, (indices.dtype,))
    if rows is None and indptr.size == 0:
        raise StructureError("indptr is empty, but must hold at least one 0")
    if rows is not None and indptr.size != rows + 1:
        raise StructureError(
            f"indptr has {indptr.size} entries, but {rows} rows need {rows + 1}"
        )
    if indptr[0] != 0:
        raise StructureError(f"indptr[0] is {indptr[0]}, but must be 0")
    falls = indptr[1:] < indptr[:-1]
    if falls.any():
        at = int(np.argmax(falls)) + 1
        raise StructureError(
            f"indptr[{at}] is {indptr[at]}, less than indptr[{at - 1}] = "
            f"{indptr[at - 1]}, but indptr must never fall"
        )
    if indptr[-1] != indices.size:
        raise StructureError(
            f"indptr[{indptr.size - 1}] is {indptr[-1]}, but must be the number of "
            f"indices, {indices.size}"
        )


def _check_range(name: str, indices: HostArray, size: int) -> None:
    """Check ``0 <= index < size`` in one pass: a negative is a huge unsigned."""
    if indices.size == 0:
        return
    unsigned = indices.view(np.uint32 if indices.itemsize == 4 else np.uint64)
    if int(unsigned.max()) < size:
        return
    at = int(np.argmax((indices < 0) | (indices >= size)))
    raise StructureError(
        f"{name}[{at}] is {indices[at]}, but must be from 0 to {size - 1} (size {size})"
    )


def _check_padding(indptr: HostArray, data: HostArray, rows: int, block: int) -> None:
    used = rows % block
    if used == 0:
        return
    first = int(indptr[-2])
    wrong = (data[first:, used:] != 0).any(axis=1)
    if wrong.any():
        at = first + int(np.argmax(wrong))
        raise StructureError(
            f"data[{at}] is nonzero below the last row ({rows - 1}), but must be 0"
        )
