"""numpy arrays <-> tensors of the Open Inference Protocol, version 2.

A body is JSON followed by the raw bytes of each tensor, little-endian and row-major,
in the order of the JSON; the header ``Inference-Header-Content-Length`` says where the
JSON ends (the protocol's binary data extension).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnz._content import Buffer, Content, of_buffers
from nnz._errors import ProtocolError

Array = NDArray[Any]

JSON_LENGTH = "Inference-Header-Content-Length"
#: The JSON is padded so that the first tensor starts on a cache line.
ALIGN = 64

_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
#: Types that the entries of a matrix may have besides.
_COMPLEX: dict[str, np.dtype[Any]] = {"C64": np.dtype("<c8"), "C128": np.dtype("<c16")}
_ENTRIES = {dtype: name for name, dtype in (_DTYPES | _COMPLEX).items()}


def dtype_of(name: str) -> np.dtype[Any]:
    """The numpy type of a protocol type such as FP32.

    Raises:
        ProtocolError: The name is not one of the numeric types.
    """
    dtype = _DTYPES.get(name) or _COMPLEX.get(name)
    if dtype is None:
        raise ProtocolError(f"tensor type {name!r} is not one of {', '.join(_DTYPES)}")
    return dtype


def type_name(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a numpy type.

    Raises:
        TypeError: Object, complex, text, time and extended types have no name.
    """
    name = _NAMES.get(dtype.newbyteorder("<"))
    if name is None:
        raise TypeError(
            f"arrays of type {dtype} cannot be sent; convert to one of "
            "bool, int8 to int64, uint8 to uint64, float16, float32, float64"
        )
    return name


def as_tensor(value: ArrayLike, dtype: np.dtype[Any] | None = None) -> Array:
    """The value as a C-ordered little-endian array; itself when it is one already."""
    array = np.asarray(value, dtype=dtype)
    wire = _DTYPES[type_name(array.dtype)]
    return np.asarray(array, dtype=wire, order="C")


def as_entries(value: ArrayLike) -> Array:
    """The entries of a matrix, as `as_tensor`, but complex numbers too."""
    array = np.asarray(value)
    if array.dtype.kind != "c":
        return as_tensor(array)
    return np.asarray(array, np.complex64 if array.itemsize == 8 else np.complex128)


def encode(
    tensors: Mapping[str, ArrayLike],
    *,
    parameters: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | None = None,
    fields: Mapping[str, Any] | None = None,
    entries: bool = False,
) -> tuple[dict[str, str], Content]:
    """Make the headers and the body of a request.

    Args:
        tensors: Arrays by input name; their memory is sent without a copy when it is
            contiguous.
        parameters: Request parameters; None values are left out.
        outputs: Names of the outputs wanted; None asks for all of them.
        fields: Further top-level JSON fields.
        entries: They are a matrix's arrays, so that complex ones may be among them.

    Raises:
        ValueError: A parameter is not finite.
    """
    make = as_entries if entries else as_tensor
    arrays = {name: make(value) for name, value in tensors.items()}
    head: dict[str, Any] = {
        **(fields or {}),
        "parameters": {
            **{k: v for k, v in (parameters or {}).items() if v is not None},
            "binary_data_output": True,
        },
        "inputs": [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": _ENTRIES[array.dtype.newbyteorder("<")],
                "parameters": {"binary_data_size": array.nbytes},
            }
            for name, array in arrays.items()
        ],
    }
    if outputs is not None:
        head["outputs"] = [{"name": name} for name in outputs]
    _check_finite(parameters or {})
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % ALIGN)
    parts: list[Buffer] = [text, *(_bytes_of(array) for array in arrays.values())]
    headers = {
        "Content-Type": "application/octet-stream",
        JSON_LENGTH: str(len(text)),
    }
    return headers, of_buffers(parts)


def _check_finite(parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value}, but must be finite")


def _bytes_of(array: Array) -> memoryview:
    if array.size == 0:
        return memoryview(b"")
    # The view as bytes: a memoryview of float16 or of a 0-d array cannot be cast.
    return array.reshape(-1).view(np.uint8).data


def decode(
    headers: Mapping[str, str], body: bytearray
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Read an answer: its JSON, and its output tensors.

    The arrays are writable and look into `body` where their alignment allows it.

    Raises:
        ProtocolError: The answer does not follow the protocol.
    """
    declared = headers.get(JSON_LENGTH)
    try:
        split = len(body) if declared is None else int(declared)
        head = json.loads(body[:split])
        outputs = head.get("outputs", ()) if "matrix" in head else head["outputs"]
        tensors = {}
        for output in outputs:
            size = output.get("parameters", {}).get("binary_data_size")
            if size is None:
                tensors[output["name"]] = _from_json(output)
            else:
                tensors[output["name"]] = _from_bytes(output, body, split, int(size))
                split += int(size)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError(
            f"the answer is not a tensor message: {type(error).__name__}: {error}"
        ) from error
    return head, tensors


def _from_json(output: Mapping[str, Any]) -> Array:
    dtype = dtype_of(output["datatype"])
    return np.array(output["data"], dtype=dtype).reshape(output["shape"])


def _from_bytes(
    output: Mapping[str, Any], body: bytearray, start: int, size: int
) -> Array:
    dtype = dtype_of(output["datatype"])
    shape = tuple(int(extent) for extent in output["shape"])
    count = math.prod(shape)
    if count * dtype.itemsize != size or start + size > len(body):
        raise ProtocolError(
            f"output {output['name']!r} of shape {shape} and type "
            f"{output['datatype']} needs {count * dtype.itemsize} bytes; "
            f"{size} are declared and {max(0, len(body) - start)} came"
        )
    flat = np.frombuffer(body, dtype=dtype, count=count, offset=start)
    return np.require(flat, requirements="A").reshape(shape)
