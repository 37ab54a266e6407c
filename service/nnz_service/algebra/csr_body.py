"""A matrix's arrays as a request body: JSON, then the bytes of the arrays.

The form is that of the Open Inference Protocol's binary tensors: `inputs` names indptr,
indices and data (CSR), or row, col and data (coordinates), each with `datatype`,
`shape` and either `data` or, among its `parameters`, `binary_data_size`;
`parameters.shape` of the whole is [m, n].
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from nnz_service.errors import InvalidMatrixError, MalformedError
from nnz_service.servable import COMPLEX_TYPES, DATATYPES

MAX_HEADER = 4 << 20
_FORMS = (("indptr", "indices", "data"), ("row", "col", "data"))
_TYPES = DATATYPES | COMPLEX_TYPES
#: What JSON may hold for each kind of numpy's types.
_JSON: dict[str, tuple[tuple[type, ...], str]] = {
    "b": ((bool,), "true or false"),
    "i": ((int,), "an integer"),
    "u": ((int,), "an integer"),
    "f": ((int, float), "a number"),
}
#: Characters of a name in a message.
_LONGEST = 80


def read_csr_body(path: Path, header: int) -> tuple[dict[str, NDArray[Any]], Any]:
    """Read the three arrays of one of the forms and the shape that was declared.

    Args:
        path: The body.
        header: Bytes of its JSON part.

    Raises:
        MalformedError: when lengths and JSON do not agree.
        InvalidMatrixError: when an array is missing or has an unusable type.
    """
    arrays, fields = read_arrays(path, header)
    form = next((names for names in _FORMS if arrays.keys() == {*names}), None)
    if form is None:
        either = " or ".join(str(names) for names in _FORMS)
        raise InvalidMatrixError(f"needs the arrays {either}; got {[*arrays]}")
    parameters = fields.get("parameters")
    return arrays, parameters.get("shape") if isinstance(parameters, dict) else None


def read_arrays(
    path: Path, header: int, *, axes: int = 1
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read all arrays of a body in a file, and its JSON part.

    Args:
        path: The body.
        header: Bytes of its JSON part.
        axes: That an array may have at most.

    Raises:
        MalformedError: when lengths and JSON do not agree.
        InvalidMatrixError: when an array comes twice or has an unusable type.
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
        name = str(row.get("name"))[:_LONGEST]
        if name in arrays:
            raise InvalidMatrixError(f"the array {name!r} comes twice")
        shape = _shape(name, row.get("shape"), axes)
        found, nbytes = _array(path, size, offset, name, row, math.prod(shape))
        arrays[name] = found.reshape(shape)
        offset += nbytes
    if offset != size:
        raise MalformedError(f"{size - offset} bytes behind the last array")
    return arrays, fields


def _shape(name: str, shape: Any, axes: int) -> list[int]:
    whole = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or not 1 <= len(shape) <= axes:
        wanted = "one axis" if axes == 1 else f"1 to {axes} axes"
        raise InvalidMatrixError(
            f"{name} has shape {shape!r:.80}, but must have {wanted}"
        )
    found: list[int] = shape
    return found


def _array(
    path: Path, size: int, offset: int, name: str, row: dict[str, Any], count: int
) -> tuple[NDArray[Any], int]:
    """The numbers of one array, and the bytes that they take behind the JSON."""
    dtype = _TYPES.get(str(row.get("datatype")))
    if dtype is None or dtype.kind not in "biufc":
        raise InvalidMatrixError(
            f"{name} has the unusable type {row.get('datatype')!r:.40}"
        )
    parameters = row.get("parameters") or {}
    nbytes = parameters.get("binary_data_size") if isinstance(parameters, dict) else 0
    if nbytes is None:
        return _from_json(name, dtype, count, row.get("data")), 0
    wanted = count * dtype.itemsize
    if type(nbytes) is not int or nbytes != wanted or offset + nbytes > size:
        raise MalformedError(
            f"{name} of {count} x {row['datatype']} says {nbytes!r:.40} bytes; "
            f"{size - offset} are left"
        )
    return np.fromfile(path, dtype, count, offset=offset), nbytes


def _from_json(name: str, dtype: np.dtype[Any], length: int, data: Any) -> NDArray[Any]:
    if not isinstance(data, list) or len(data) != length:
        raise MalformedError(f"{name} needs `data` with {length} numbers")
    if dtype.kind == "c":
        raise InvalidMatrixError(f"{name}: complex numbers have no JSON form")
    allowed, right = _JSON[dtype.kind]
    for at, value in enumerate(data):
        if type(value) not in allowed:
            raise InvalidMatrixError(
                f"{name}[{at}] is {value!r:.40}, but must be {right}"
            )
    try:
        with np.errstate(over="ignore"):
            out = np.array(data, dtype)
    except OverflowError as error:
        raise InvalidMatrixError(f"{name}: {error}") from error
    if dtype.kind == "f" and not np.isfinite(out).all():
        at = int(np.argmin(np.isfinite(out)))
        raise InvalidMatrixError(f"{name}[{at}] is too large for {dtype}")
    return out


def _json(text: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"the JSON part: {error}") from error
    if not isinstance(fields, dict):
        raise MalformedError("the JSON part is not an object")
    return fields
