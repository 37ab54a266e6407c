"""Tensors whose numbers stand in fields of the message, one field a kind of number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.grpc.protocol import messages as m

#: The field of each data type and what it holds.
_FIELDS: dict[str, tuple[str, type[np.generic]]] = {
    "BOOL": ("bool_contents", np.bool_),
    "UINT8": ("uint_contents", np.uint32),
    "UINT16": ("uint_contents", np.uint32),
    "UINT32": ("uint_contents", np.uint32),
    "UINT64": ("uint64_contents", np.uint64),
    "INT8": ("int_contents", np.int32),
    "INT16": ("int_contents", np.int32),
    "INT32": ("int_contents", np.int32),
    "INT64": ("int64_contents", np.int64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
}


def from_contents(
    contents: m.InferTensorContents,
    datatype: str,
    dtype: np.dtype[Any],
    shape: Sequence[int],
    where: str,
) -> NDArray[Any]:
    """Make an array from typed contents.

    Args:
        contents: Numbers in row-major order.
        datatype: One of `DATATYPES`.
        dtype: The same for numpy.
        shape: As it was sent, checked.
        where: Names the input in errors.

    Raises:
        MalformedError: They are in another field, of another number, or out of range.
        ImpossibleError: The type has no typed contents.
    """
    if datatype not in _FIELDS:
        raise ImpossibleError(
            f"{where}: {datatype} has no typed contents; send it in raw_input_contents "
            "or send FP32"
        )
    field, wide = _FIELDS[datatype]
    others = {found.name for found, _ in contents.ListFields()} - {field}
    if others:
        raise MalformedError(
            f"{where}: {datatype} belongs into {field}, not into {min(others)}"
        )
    values = getattr(contents, field)
    count = math.prod(shape)
    if len(values) != count:
        raise MalformedError(
            f"{where} has {len(values)} numbers in {field} and no raw_input_contents; "
            f"shape {list(shape)} needs {count}"
        )
    numbers = np.fromiter(values, wide, count)
    if dtype.itemsize < numbers.itemsize and count:
        bounds = np.iinfo(dtype)
        if numbers.min() < bounds.min or numbers.max() > bounds.max:
            raise MalformedError(
                f"{where}: {field} runs from {numbers.min()} to {numbers.max()}; "
                f"{datatype} holds {bounds.min} to {bounds.max}"
            )
    return numbers.astype(dtype, copy=False).reshape(shape)
