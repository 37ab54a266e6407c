"""Names, shapes and bytes of tensors in a request, checked before an array exists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.errors import MalformedError

_MAX_RANK = 32
_MAX_NAME = 512
#: Offsets and sizes beyond this cannot be addressed by numpy.
MAX_BYTES = 2**63 - 1


def check_id(value: object) -> None:
    """Refuse a name of a request that is no name.

    Raises:
        MalformedError: It is neither absent nor a short string.
    """
    if value is not None and (not isinstance(value, str) or len(value) > _MAX_NAME):
        raise MalformedError(f"'id' must be a string of at most {_MAX_NAME} characters")


def check_name(name: object, where: str, seen: set[str]) -> str:
    """Return the name of a tensor, which joins those that were seen.

    Raises:
        MalformedError: It cannot be a name, or was used before.
    """
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or "\0" in name:
        raise MalformedError(
            f"{where}.name must be a string of 1 to {_MAX_NAME} characters without NUL"
        )
    if name in seen:
        raise MalformedError(f"{where}: the name '{name}' was used before")
    seen.add(name)
    return name


def check_shape(shape: Sequence[int], dtype: np.dtype[Any], where: str) -> None:
    """Refuse a shape that no array can have.

    Raises:
        MalformedError: Too many extents, a negative one, or more than fits memory.
    """
    if len(shape) > _MAX_RANK:
        raise MalformedError(
            f"{where}: 'shape' has {len(shape)} extents, the limit is {_MAX_RANK}"
        )
    if any(extent < 0 for extent in shape):
        raise MalformedError(f"{where}: shape {shape} has a negative extent")
    if math.prod(extent or 1 for extent in shape) * dtype.itemsize > MAX_BYTES:
        raise MalformedError(f"{where}: shape {shape} is too large to address")


def view_bytes(
    data: memoryview | bytes, dtype: np.dtype[Any], shape: Sequence[int], where: str
) -> NDArray[Any]:
    """View bytes as an array; copied only when they lie unaligned.

    Raises:
        MalformedError: A BOOL is neither 0 nor 1.
    """
    if dtype == np.bool_:
        raw = np.frombuffer(data, np.uint8)
        if raw.size and raw.max() > 1:
            raise MalformedError(f"{where}: a BOOL byte must be 0 or 1")
    array = np.frombuffer(data, dtype)
    if not array.flags.aligned:
        array = array.copy()
    return array.reshape(shape)
