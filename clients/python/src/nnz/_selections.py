"""Rows and columns of a matrix as ``A[...]`` names them, with numpy's meaning."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnz._tensors import Array

#: A slice, numbers in any order, or None for all.
Selection = slice | Array | None


def both(key: Any, shape: tuple[int, int]) -> tuple[Selection, Selection]:
    """The rows and the columns that a key picks.

    Args:
        key: A slice, a list of numbers or a mask; a pair of these of which one is a
            slice; or what ``np.ix_`` gives.
        shape: Of the matrix.

    Raises:
        IndexError: It is none of these, or outside of the matrix.
    """
    pair = key if isinstance(key, tuple) else (key, slice(None))
    if len(pair) != 2:
        raise IndexError(f"a matrix has two axes, not {len(pair)}")
    if not isinstance(pair[0], slice) and not isinstance(pair[1], slice):
        pair = _outer(*pair)
    rows, columns = (
        _one(part, size, name)
        for part, size, name in zip(pair, shape, ("row", "column"), strict=True)
    )
    return rows, columns


def size_of(one: slice | Array, extent: int) -> int:
    """How many of so many it picks."""
    if isinstance(one, slice):
        return len(range(*one.indices(extent)))
    return int(one.size)


def _outer(rows: Any, columns: Any) -> tuple[Any, Any]:
    r, c = np.asarray(rows), np.asarray(columns)
    if r.ndim == 2 and c.ndim == 2 and r.shape[1] == 1 and c.shape[0] == 1:
        return r[:, 0], c[0]
    raise IndexError(
        "two lists of numbers pick single entries; for the submatrix use "
        "A[np.ix_(rows, columns)]"
    )


def _one(part: Any, size: int, name: str) -> Selection:
    if isinstance(part, slice):
        if part == slice(None):
            return None
        start, stop, step = (None if n is None else int(n)
                             for n in (part.start, part.stop, part.step))  # fmt: skip
        if step == 0:
            raise IndexError(f"the step of the {name}s is 0")
        return slice(start, stop, step)
    numbers = np.asarray(part)
    if numbers.dtype == np.bool_ and numbers.shape == (size,):
        numbers = np.flatnonzero(numbers)
    if numbers.size == 0:
        numbers = numbers.astype(np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise IndexError(
            f"{name}s are a slice, a list of numbers or a mask of length {size}, not "
            f"{str(part)[:60]}; a single one is i:i+1"
        )
    outside = (numbers < -size) | (numbers >= size)
    if outside.any():
        raise IndexError(f"{name} {numbers[outside][0]} of {size} does not exist")
    return numbers.astype(np.int64)
