"""Read tensor bodies of the Open Inference Protocol: JSON, binary and mixed.

A body is a JSON object, then the bytes of its binary tensors in the order of
``inputs``. Binary tensors become arrays over the body's own memory, not copies.
Everything a caller can get wrong is found here, before an array exists.

Who asks again and again sends the same JSON before other bytes. What a short one says
is remembered, so that only the bytes are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, MalformedError, TooLargeError
from nnz_service.gateway.datatypes import dtype_of
from nnz_service.gateway.lent import LentInput, lent_input, place_of
from nnz_service.gateway.parameters import is_int, timeout_of
from nnz_service.gateway.regions import Place
from nnz_service.gateway.tensors import check_id, check_name, check_shape, view_bytes
from nnz_service.web.elements import from_json, kind_of

_Array = NDArray[Any]

#: Bytes of JSON that is worth remembering, and how many of these are: what is read in
#: them may take twenty times as much memory.
_SHORT, _REMEMBERED = 2048, 64


@dataclass(frozen=True, slots=True)
class Body:
    """A received body: its bytes and where the JSON part ends.

    Args:
        data: All bytes, uncompressed.
        header: Length of the JSON part; None when all of it is JSON.
    """

    data: memoryview
    header: int | None = None


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """One entry of ``outputs``.

    Args:
        binary: Whether it goes out as bytes; None means the request's default.
        place: Where it is to be written in shared memory, instead of going out.
    """

    name: str
    binary: bool | None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class TensorRequest:
    """A parsed body: named tensors and what was asked for.

    Args:
        fields: Every member of the JSON object but ``inputs`` and ``outputs``.
        binary: Whether some input came as bytes.
        lent: Inputs that lie in shared memory and are still to be read.
    """

    fields: Mapping[str, Any]
    parameters: Mapping[str, Any]
    tensors: dict[str, _Array]
    outputs: tuple[WantedOutput, ...]
    binary: bool
    lent: dict[str, LentInput] = field(default_factory=dict)

    @property
    def places(self) -> list[Place]:
        """Every place in shared memory that the request names."""
        inputs = [one.place for one in self.lent.values()]
        return inputs + [one.place for one in self.outputs if one.place is not None]

    @property
    def id(self) -> str | None:
        """The caller's own name for the request, given back in the answer."""
        return self.fields.get("id")

    @property
    def timeout(self) -> int | None:
        """Microseconds after which the caller has no use for the answer.

        Raises:
            MalformedError: It is not such a number.
        """
        return timeout_of(self.parameters)

    def wants_binary(self, name: str, default: bool) -> bool:
        """Say whether output `name` goes out as bytes."""
        for wanted in self.outputs:
            if wanted.name == name and wanted.binary is not None:
                return wanted.binary
        return bool(self.parameters.get("binary_data_output", default))

    def wants_bytes(self, name: str, default: bool) -> bool:
        """Say whether output `name` follows the JSON, and goes nowhere else."""
        return self.wants_binary(name, default) and self.place_of(name) is None

    def place_of(self, name: str) -> Place | None:
        """Return where output `name` is to be written in shared memory."""
        return next((one.place for one in self.outputs if one.name == name), None)


def read_object(text: memoryview, limit: int) -> dict[str, Any]:
    """Parse a JSON object of at most `limit` bytes.

    Raises:
        TooLargeError: It is longer than `limit`.
        MalformedError: It is not JSON, or not an object.
    """
    if len(text) > limit:
        raise TooLargeError(
            f"the JSON part of the body has {len(text)} bytes, the limit is {limit}; "
            "send tensors as binary data (Inference-Header-Content-Length)"
        )
    if not len(text):
        raise MalformedError("the body is empty; it must be a JSON object")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise MalformedError(f"the body is not valid JSON: {exc}") from None
    if not isinstance(value, dict):
        raise MalformedError(
            f"the body is a JSON {kind_of(value)}; it must be an object"
        )
    return value


def read_tensors(body: Body, max_json: int, *, least: int = 1) -> TensorRequest:
    """Parse a body of JSON and, behind it, binary tensors, *least* of them.

    Raises:
        MalformedError: Something in it contradicts the protocol or itself.
        ImpossibleError: It asks for what the protocol has and nnz has not.
        TooLargeError: The JSON part is longer than `max_json`.
    """
    if not len(body.data):
        raise MalformedError("the body is empty; it must be a JSON object with inputs")
    header = len(body.data) if body.header is None else body.header
    if not 0 < header <= len(body.data):
        raise MalformedError(
            f"Inference-Header-Content-Length is {header}, "
            f"but the body has {len(body.data)} bytes; it must be the length of the "
            "JSON part, at least 2 and at most the whole body"
        )
    text, tail = body.data[:header], body.data[header:]
    if len(tail) and header <= min(_SHORT, max_json):
        return _remembered(bytes(text), least).over(tail)
    return _layout(text, max_json, least).over(tail)


@dataclass(frozen=True, slots=True)
class _Follows:
    """An input whose bytes follow the JSON."""

    dtype: np.dtype[Any]
    shape: list[int]
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the JSON of a body says, checked; many bodies may begin with it."""

    fields: Mapping[str, Any]
    parameters: Mapping[str, Any]
    inputs: Mapping[str, _Array | LentInput | _Follows]
    outputs: tuple[WantedOutput, ...]

    def over(self, tail: memoryview) -> TensorRequest:
        """Take the tensors that follow out of the bytes behind the JSON.

        Raises:
            MalformedError: There are too few or too many, or a BOOL is none.
        """
        tensors: dict[str, _Array] = {}
        lent: dict[str, LentInput] = {}
        at, binary = 0, False
        for name, one in self.inputs.items():
            if isinstance(one, _Follows):
                end, binary, where = at + one.nbytes, True, f"input '{name}'"
                if end > len(tail):
                    raise MalformedError(
                        f"{where} says binary_data_size {one.nbytes}, but only "
                        f"{len(tail) - at} of the {len(tail)} bytes behind the JSON "
                        "part are left"
                    )
                tensors[name] = view_bytes(tail[at:end], one.dtype, one.shape, where)
                at = end
            elif isinstance(one, LentInput):
                lent[name] = one
            else:
                tensors[name] = one
        if at != len(tail):
            raise MalformedError(
                f"{len(tail)} bytes follow the JSON part, but the inputs account for "
                f"{at} (the sum of their binary_data_size)"
            )
        return TensorRequest(
            self.fields, self.parameters, tensors, self.outputs, binary, lent
        )


@lru_cache(_REMEMBERED)
def _remembered(text: bytes, least: int) -> _Layout:
    found = _layout(memoryview(text), len(text), least)
    for one in found.inputs.values():
        if isinstance(one, np.ndarray):
            one.flags.writeable = False  # many requests have it
    return found


def _layout(text: memoryview, max_json: int, least: int) -> _Layout:
    """Read the JSON part of a body.

    Raises:
        MalformedError, ImpossibleError, TooLargeError: As `read_tensors`.
    """
    fields = read_object(text, max_json)
    check_id(fields.get("id"))
    parameters = _object(fields, "parameters", "the request")
    if not isinstance(parameters.get("binary_data_output", False), bool):
        raise MalformedError("parameters.binary_data_output must be true or false")
    inputs = dict(_inputs(fields.pop("inputs", None if least else []), least))
    outputs = tuple(_outputs(fields.pop("outputs", None)))
    return _Layout(fields, parameters, inputs, outputs)


def read_raw(body: Body, name: str, datatype: str, shape: list[int]) -> TensorRequest:
    """Parse a body that is only the bytes of the one input of a model.

    `shape` is the declared one; at most one extent may be -1.

    Raises:
        MalformedError: The number of bytes fits no extent.
        ImpossibleError: More than one extent is free.
    """
    where = f"input '{name}'"
    dtype = dtype_of(datatype, where)
    if shape.count(-1) > 1:
        raise ImpossibleError(
            f"{where} has shape {shape}: a raw body cannot say which extents are "
            "meant; send a JSON header with the shape"
        )
    known = math.prod(extent for extent in shape if extent != -1) * dtype.itemsize
    free, rest = divmod(len(body.data), known) if known else (0, len(body.data))
    if rest or (-1 not in shape and free != 1):
        raise MalformedError(
            f"the raw body has {len(body.data)} bytes; {where} of shape {shape} and "
            f"type {datatype} needs {'a multiple of ' * (-1 in shape)}{known}"
        )
    full = [free if extent == -1 else extent for extent in shape]
    array = view_bytes(body.data, dtype, full, where)
    parameters = {"binary_data_output": True}
    return TensorRequest({}, parameters, {name: array}, (), True)


def _inputs(
    entries: object, least: int
) -> Iterator[tuple[str, _Array | LentInput | _Follows]]:
    if not isinstance(entries, list) or len(entries) < least:
        many = "at least one tensor" if least else "tensors"
        raise MalformedError(f"'inputs' must be a list of {many}")
    seen: set[str] = set()
    for position, entry in enumerate(entries):
        name = _name(entry, f"inputs[{position}]", seen)
        yield name, _input(entry, f"input '{name}'")


def _input(entry: dict[str, Any], where: str) -> _Array | LentInput | _Follows:
    dtype = dtype_of(entry.get("datatype"), where)
    shape = _shape(entry.get("shape"), dtype, where)
    parameters = _object(entry, "parameters", where)
    expected = math.prod(shape) * dtype.itemsize
    if (place := _place(parameters, where)) is not None:
        if entry.get("data") is not None:
            raise MalformedError(f"{where} has both 'data' and shared memory; send one")
        return lent_input(place, dtype, shape, where)
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in entry:
            raise MalformedError(
                f"{where} has neither 'data' nor parameters.binary_data_size"
            )
        return from_json(entry["data"], dtype, shape, where)
    if "data" in entry:
        raise MalformedError(
            f"{where} has both 'data' and parameters.binary_data_size; send one"
        )
    if not is_int(size) or size != expected:
        raise MalformedError(
            f"{where} says binary_data_size {size!r}; shape {shape} of "
            f"{entry['datatype']} needs {expected}"
        )
    return _Follows(dtype, shape, size)


def _outputs(entries: object) -> Iterator[WantedOutput]:
    if entries is None:
        return
    if not isinstance(entries, list):
        raise MalformedError(
            f"'outputs' is a JSON {kind_of(entries)}; it must be a list"
        )
    seen: set[str] = set()
    for position, entry in enumerate(entries):
        name = _name(entry, f"outputs[{position}]", seen)
        where = f"output '{name}'"
        parameters = _object(entry, "parameters", where)
        place = _place(parameters, where)
        if parameters.get("classification"):
            raise ImpossibleError(
                f"{where} asks for classification strings, which nnz does not give; "
                "take the output and sort it"
            )
        binary = parameters.get("binary_data")
        if binary is not None and not isinstance(binary, bool):
            raise MalformedError(f"{where}: binary_data must be true or false")
        yield WantedOutput(name, binary, place)


def _name(entry: object, where: str, seen: set[str]) -> str:
    if not isinstance(entry, dict):
        raise MalformedError(
            f"{where} is a JSON {kind_of(entry)}; it must be an object"
        )
    return check_name(entry.get("name"), where, seen)


def _shape(shape: object, dtype: np.dtype[Any], where: str) -> list[int]:
    if not isinstance(shape, list) or not all(is_int(extent) for extent in shape):
        raise MalformedError(f"{where}: 'shape' must be a list of integers")
    check_shape(shape, dtype, where)
    return shape


def _object(entry: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = entry.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedError(
            f"'{key}' of {where} is a JSON {kind_of(value)}; it must be an object"
        )
    return value


def _place(parameters: dict[str, Any], where: str) -> Place | None:
    """Return the place in shared memory that parameters name, if they do."""
    place = place_of(parameters, where)
    if place is not None and "binary_data_size" in parameters:
        raise MalformedError(
            f"{where} has both binary_data_size and shared_memory_region; send one"
        )
    return place
