"""Argument types of the kernels between sparse matrices."""

from __future__ import annotations

from typing import Any

from numba import types

from nnz_kernels.cpu._entry import Entry

#: Letters that stand for one type in every variant.
_FIXED = {
    "N": types.int64,
    "L": types.int64[::1],
    "M": types.int64[:, ::1],
    "S": types.int32[:, ::1],
    "U": types.uint64,
    "W": types.uint64[:, ::1],
    "B": types.boolean,
}


def entry(function: Any, pattern: str) -> Entry:
    """Describe a kernel by its arguments: i indices, f values, F rows of them.

    Indices of 64 bits are rare: only a matrix of more than 2**31 rows, columns or
    entries needs them.
    """
    variants: dict[Any, list[Any]] = {types.int32: [], types.int64: []}
    for i, found in variants.items():
        for f in (types.float32, types.float64, types.complex128):
            letters = {"i": i[::1], "f": f[::1], "F": f[:, ::1], **_FIXED}
            these = tuple(letters[letter] for letter in pattern)
            if these not in found:
                found.append(these)
    return Entry(function, tuple(variants[types.int32]), tuple(variants[types.int64]))
