"""A CSR matrix as a request body: JSON, then the bytes of the arrays.

The form is that of the Open Inference Protocol's binary tensors: `inputs` names indptr,
indices and data, each with `datatype`, `shape` and either `data` or, among its
`parameters`, `binary_data_size`; `parameters.shape` of the whole is [m, n].
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from nnz_service.errors import InvalidMatrixError, MalformedError
from nnz_service.servable import DATATYPES

MAX_HEADER = 4 << 20
_NAMES = ("indptr", "indices", "data")


def read_csr_body(path: Path, header: int) -> tuple[dict[str, NDArray[Any]], Any]:
    """Read the three arrays and the shape that was declared.

    Args:
        path: The body.
        header: Bytes of its JSON part.

    Raises:
        MalformedError: when lengths and JSON do not agree.
        InvalidMatrixError: when an array is missing or has an unusable type.
    """
    size = path.stat().st_size
    if not 0 < header <= min(size, MAX_HEADER):
        raise MalformedError(f"a JSON part of {header} bytes in a body of {size}")
    with path.open("rb") as file:
        fields = _json(file.read(header))
    rows = fields.get("inputs")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MalformedError("`inputs` must be a list of tensors")
    arrays: dict[str, NDArray[Any]] = {}
    offset = header
    for row in rows:
        name = str(row.get("name"))
        arrays[name], nbytes = _array(path, size, offset, name, row)
        offset += nbytes
    if offset != size:
        raise MalformedError(f"{size - offset} bytes behind the last array")
    if sorted(arrays) != sorted(_NAMES) or len(rows) != len(_NAMES):
        raise InvalidMatrixError(f"needs the arrays {_NAMES}; got {[*arrays]}")
    parameters = fields.get("parameters")
    return arrays, parameters.get("shape") if isinstance(parameters, dict) else None


def _array(
    path: Path, size: int, offset: int, name: str, row: dict[str, Any]
) -> tuple[NDArray[Any], int]:
    """One array and the bytes that it takes behind the JSON."""
    dtype = DATATYPES.get(str(row.get("datatype")))
    if dtype is None or dtype.kind not in "biuf":
        raise InvalidMatrixError(f"{name} has the unusable type {row.get('datatype')}")
    shape = row.get("shape")
    whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or shape is None or len(shape) != 1:
        raise InvalidMatrixError(f"{name} has shape {shape}, but must have one axis")
    parameters = row.get("parameters") or {}
    nbytes = parameters.get("binary_data_size") if isinstance(parameters, dict) else 0
    if nbytes is None:
        return _from_json(name, dtype, shape[0], row.get("data")), 0
    if nbytes != math.prod(shape) * dtype.itemsize or offset + nbytes > size:
        raise MalformedError(
            f"{name} of {shape[0]} x {row['datatype']} says {nbytes} bytes; "
            f"{size - offset} are left"
        )
    if not nbytes:
        return np.empty(0, dtype), 0
    mapped = np.memmap(path, dtype, "r", offset, (shape[0],))
    return np.array(mapped), nbytes  # a copy, because the file is not aligned


def _from_json(name: str, dtype: np.dtype[Any], length: int, data: Any) -> NDArray[Any]:
    if not isinstance(data, list) or len(data) != length:
        raise MalformedError(f"{name} needs `data` with {length} numbers")
    try:
        return np.array(data, dtype).reshape(length)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidMatrixError(f"{name}: {error}") from error


def _json(text: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"the JSON part: {error}") from error
    if not isinstance(fields, dict):
        raise MalformedError("the JSON part is not an object")
    return fields
