"""The elements of one tensor: JSON numbers or bytes, checked and made an array."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, MalformedError

_Array = NDArray[Any]


def from_json(
    data: object, dtype: np.dtype[Any], shape: list[int], where: str
) -> _Array:
    """Make an array from JSON numbers, flat or nested as `shape` says.

    Raises:
        MalformedError: They are not numbers of that type, or not as many.
        ImpossibleError: The type has no JSON form.
    """
    if dtype == np.float16:
        raise ImpossibleError(
            f"{where}: FP16 has no JSON form; send it as binary data or send FP32"
        )
    if not isinstance(data, list):
        raise MalformedError(f"{where}: 'data' is {kind_of(data)}; it must be a list")
    flat, found = _flatten(data, where, shape)
    if found not in ([math.prod(shape)], shape):
        raise MalformedError(
            f"{where}: 'data' has {len(flat)} numbers as {found}; shape {shape} needs "
            f"{math.prod(shape)}, flat or nested"
        )
    return _numbers(flat, dtype, where).reshape(shape)


def _flatten(
    data: list[Any], where: str, shape: list[int]
) -> tuple[list[Any], list[int]]:
    """Return the leaves and the extents; numpy is not asked, it guesses too much."""
    extents = [len(data)]
    kinds = set(map(type, data))
    while kinds == {list}:
        lengths = set(map(len, data))
        if len(lengths) > 1:
            break
        extents.append(lengths.pop())
        data = list(chain.from_iterable(data))
        kinds = set(map(type, data))
    if list in kinds:
        raise MalformedError(
            f"{where}: 'data' is ragged; it must be flat or nested as shape {shape}"
        )
    return data, extents


def _numbers(flat: list[Any], dtype: np.dtype[Any], where: str) -> _Array:
    """Convert to `dtype` without changing a value beyond rounding."""
    kinds: dict[str, set[type]] = {"b": {bool}, "f": {int, float}}
    allowed = kinds.get(dtype.kind, {int})
    if not allowed.issuperset(map(type, flat)):
        want = {"b": "true or false", "f": "numbers"}.get(dtype.kind, "integers")
        wrong = next(leaf for leaf in flat if type(leaf) not in allowed)
        raise MalformedError(
            f"{where}: 'data' must hold only {want}, found {orjson.dumps(wrong)[:40]!r}"
        )
    try:
        with np.errstate(over="ignore"):
            out = np.array(flat, dtype)
    except OverflowError:
        bounds = np.iinfo(dtype)
        raise MalformedError(
            f"{where}: 'data' runs from {min(flat)} to {max(flat)}; the type holds "
            f"{bounds.min} to {bounds.max}"
        ) from None
    if dtype.kind == "f" and not np.isfinite(out).all():
        raise MalformedError(f"{where}: 'data' holds a number too large for {dtype}")
    return out


def kind_of(value: object) -> str:
    """Name a JSON value for an error message."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean"}
    return "null" if value is None else names.get(type(value), "number")
