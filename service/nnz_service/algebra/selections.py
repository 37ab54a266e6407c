"""Which rows or columns a request picks: a range among its parameters, or a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnz_kernels.api.sparse import Selection, chosen
from nnz_kernels.arrays import HostArray
from nnz_service import usage
from nnz_service.errors import InvalidInputError, TooLargeError

#: Bytes of scratch that a side of a matrix may ask for: a few bytes name any size.
MAX_SCRATCH = min(4 << 30, usage.memory_limit() // 4)


def picked(
    params: Mapping[str, Any], tensors: Mapping[str, HostArray], name: str
) -> Selection | None:
    """Return what a request picks of its *name*, ``rows`` or ``columns``.

    The parameter is ``[start, stop]`` or ``[start, stop, step]``, as in Python, null
    for an open end; the input is integers in any order. None takes all.

    Raises:
        InvalidInputError: Both are given, or one is of another form.
    """
    span = params.get(name)
    if name in tensors:
        if span is not None:
            raise InvalidInputError(f"{name} is a parameter and an input: give one")
        return _numbers(tensors[name], name)
    if span is None:
        return None
    wanted = isinstance(span, list) and len(span) in (2, 3)
    if not wanted or any(
        isinstance(x, bool) or not isinstance(x, int | None) for x in span
    ):
        raise InvalidInputError(
            f"{name} is {str(span)[:80]}, but must be [start, stop] or [start, stop, "
            "step], integers or null; single numbers go in as an input"
        )
    if len(span) == 3 and span[2] == 0:
        raise InvalidInputError(f"the step of {name} is 0, but must not be")
    return slice(*span)


def repeats(which: Selection | None, size: int, name: str) -> HostArray:
    """Return how often each of *size* rows or columns is picked, int64.

    Raises:
        ShapeError: A number is outside of the matrix.
        TooLargeError: There are too many to count.
    """
    check_scratch(size, name)
    numbers = chosen(which, size, name)
    if isinstance(numbers, range):
        out = np.zeros(size, np.int64)
        out[which if isinstance(which, slice) else slice(None)] = 1
        return out
    return np.bincount(np.asarray(numbers, np.int64), minlength=size)


def check_scratch(size: int, name: str) -> None:
    """Refuse to go over so many rows or columns.

    Raises:
        TooLargeError: Counting them takes more than `MAX_SCRATCH` bytes.
    """
    if 8 * size > MAX_SCRATCH:
        raise TooLargeError(
            f"there are {size} {name}s, which takes {8 * size} bytes of scratch; the "
            f"limit is {MAX_SCRATCH}"
        )


def _numbers(given: HostArray, name: str) -> list[int]:
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise InvalidInputError(
            f"{name} is {given.dtype} of shape {list(given.shape)}, but must be "
            "integers of shape [count]"
        )
    numbers: list[int] = given.tolist()
    return numbers
