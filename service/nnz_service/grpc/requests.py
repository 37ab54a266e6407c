"""What an inference request asks for; all that can be wrong with it is found here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.gateway.datatypes import dtype_of
from nnz_service.gateway.tensors import check_id, check_name, check_shape, view_bytes
from nnz_service.grpc.contents import from_contents
from nnz_service.grpc.protocol import messages as m
from nnz_service.grpc.regions import refuse_regions

_Input = m.ModelInferRequest.InferInputTensor
_Output = m.ModelInferRequest.InferRequestedOutputTensor


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: named tensors, parameters, and the outputs that are wanted.

    Args:
        outputs: Their names; none stands for all.
    """

    tensors: dict[str, NDArray[Any]]
    parameters: dict[str, Any]
    outputs: tuple[str, ...]


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
    tensors = dict(_inputs(request.inputs, raw))
    return Asked(tensors, parameters, tuple(_outputs(request.outputs)))


def _inputs(
    entries: Sequence[_Input], raw: Sequence[memoryview]
) -> Iterator[tuple[str, NDArray[Any]]]:
    if not entries:
        raise MalformedError("'inputs' must be a list of at least one tensor")
    seen: set[str] = set()
    for position, entry in enumerate(entries):
        name = check_name(entry.name, f"inputs[{position}]", seen)
        where = f"input '{name}'"
        refuse_regions(_parameters(entry.parameters, where), where)
    if raw and len(raw) != len(entries):
        raise MalformedError(
            f"raw_input_contents has {len(raw)} entries for {len(entries)} inputs; "
            "either each input has one or none has"
        )
    for position, entry in enumerate(entries):
        yield entry.name, _input(entry, raw[position] if raw else None)


def _input(entry: _Input, raw: memoryview | None) -> NDArray[Any]:
    where = f"input '{entry.name}'"
    dtype = dtype_of(entry.datatype, where)
    shape = list(entry.shape)
    check_shape(shape, dtype, where)
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


def _outputs(entries: Sequence[_Output]) -> Iterator[str]:
    seen: set[str] = set()
    for position, entry in enumerate(entries):
        name = check_name(entry.name, f"outputs[{position}]", seen)
        where = f"output '{name}'"
        parameters = _parameters(entry.parameters, where)
        refuse_regions(parameters, where)
        if parameters.get("classification"):
            raise ImpossibleError(
                f"{where} asks for classification strings, which nnz does not give; "
                "take the output and sort it"
            )
        yield name


def _parameters(entries: Mapping[str, m.InferParameter], where: str) -> dict[str, Any]:
    return {name: _value(entry, f"{where}.{name}") for name, entry in entries.items()}


def _value(parameter: m.InferParameter, where: str) -> Any:
    which = parameter.WhichOneof("parameter_choice")
    if which is None:
        raise MalformedError(f"{where[:200]} has no value")
    return getattr(parameter, which)
