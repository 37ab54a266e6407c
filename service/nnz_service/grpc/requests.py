"""What an inference request asks for; all that can be wrong with it is found here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.gateway.datatypes import dtype_of
from nnz_service.gateway.lent import LentInput, lent_input, place_of
from nnz_service.gateway.regions import Place
from nnz_service.gateway.tensors import check_id, check_name, check_shape, view_bytes
from nnz_service.grpc.contents import from_contents
from nnz_service.grpc.protocol import messages as m

_Input = m.ModelInferRequest.InferInputTensor
_Output = m.ModelInferRequest.InferRequestedOutputTensor


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: named tensors, parameters, and the outputs that are wanted.

    Args:
        outputs: Their names, each with where it goes in shared memory, if it does; none
            stands for all.
        lent: Inputs that lie in shared memory and are still to be read.
    """

    tensors: dict[str, NDArray[Any]]
    parameters: dict[str, Any]
    outputs: dict[str, Place | None]
    lent: dict[str, LentInput] = field(default_factory=dict)

    @property
    def places(self) -> list[Place]:
        """Every place in shared memory that the request names."""
        inputs = [one.place for one in self.lent.values()]
        return inputs + [one for one in self.outputs.values() if one is not None]


def read_request(request: m.ModelInferRequest, raw: Sequence[memoryview]) -> Asked:
    """Read a request; raw tensors become arrays over `raw`, copied only if unaligned.

    Args:
        request: Without its `raw_input_contents`.
        raw: These.

    Raises:
        MalformedError: Something in it contradicts the protocol or itself.
        ImpossibleError: It asks for what the protocol has and nnz has not.
    """
    check_id(request.id)
    parameters = _parameters(request.parameters, "parameters")
    inputs = dict(_inputs(request.inputs, raw))
    lent = {name: x for name, x in inputs.items() if isinstance(x, LentInput)}
    tensors = {name: x for name, x in inputs.items() if not isinstance(x, LentInput)}
    return Asked(tensors, parameters, dict(_outputs(request.outputs)), lent)


def _inputs(
    entries: Sequence[_Input], raw: Sequence[memoryview]
) -> Iterator[tuple[str, NDArray[Any] | LentInput]]:
    if not entries:
        raise MalformedError("'inputs' must be a list of at least one tensor")
    seen: set[str] = set()
    places: list[Place | None] = []
    for position, entry in enumerate(entries):
        name = check_name(entry.name, f"inputs[{position}]", seen)
        where = f"input '{name}'"
        places.append(place_of(_parameters(entry.parameters, where), where))
    sent = places.count(None)
    if raw and len(raw) != sent:
        outside = " outside shared memory" if sent < len(entries) else ""
        raise MalformedError(
            f"raw_input_contents has {len(raw)} entries for {sent} inputs{outside}; "
            "either each of them has one or none has"
        )
    pieces = iter(raw)
    for entry, place in zip(entries, places, strict=True):
        if place is None:
            yield entry.name, _input(entry, next(pieces, None))
        else:
            yield entry.name, _lent(entry, place)


def _lent(entry: _Input, place: Place) -> LentInput:
    where = f"input '{entry.name}'"
    if entry.contents.ListFields():
        raise MalformedError(f"{where} has both 'contents' and shared memory; send one")
    dtype, shape = _form(entry, where)
    return lent_input(place, dtype, shape, where)


def _form(entry: _Input, where: str) -> tuple[np.dtype[Any], list[int]]:
    dtype = dtype_of(entry.datatype, where)
    shape = list(entry.shape)
    check_shape(shape, dtype, where)
    return dtype, shape


def _input(entry: _Input, raw: memoryview | None) -> NDArray[Any]:
    where = f"input '{entry.name}'"
    dtype, shape = _form(entry, where)
    if raw is None:
        return from_contents(entry.contents, entry.datatype, dtype, shape, where)
    if entry.contents.ListFields():
        raise MalformedError(
            f"{where} has both 'contents' and raw_input_contents; send one"
        )
    expected = math.prod(shape) * dtype.itemsize
    if raw.nbytes != expected:
        raise MalformedError(
            f"{where} has {raw.nbytes} bytes in raw_input_contents; shape {shape} of "
            f"{entry.datatype} needs {expected}"
        )
    return view_bytes(raw, dtype, shape, where)


def _outputs(entries: Sequence[_Output]) -> Iterator[tuple[str, Place | None]]:
    seen: set[str] = set()
    for position, entry in enumerate(entries):
        name = check_name(entry.name, f"outputs[{position}]", seen)
        where = f"output '{name}'"
        parameters = _parameters(entry.parameters, where)
        place = place_of(parameters, where)
        if parameters.get("classification"):
            raise ImpossibleError(
                f"{where} asks for classification strings, which nnz does not give; "
                "take the output and sort it"
            )
        yield name, place


def _parameters(entries: Mapping[str, m.InferParameter], where: str) -> dict[str, Any]:
    return {name: _value(entry, f"{where}.{name}") for name, entry in entries.items()}


def _value(parameter: m.InferParameter, where: str) -> Any:
    which = parameter.WhichOneof("parameter_choice")
    if which is None:
        raise MalformedError(f"{where[:200]} has no value")
    return getattr(parameter, which)
