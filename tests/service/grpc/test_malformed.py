"""Whatever is sent is answered, and never as a fault of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service.grpc.conftest import Serve
from service.grpc.serving import Echo, Line, line, request_of

from nnz_service.grpc.calls import CALLS
from nnz_service.grpc.protocol import messages as m
from nnz_service.servable import DATATYPES

#: What the sender of a request may be told about it.
_FAIR = {
    StatusCode.OK,
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.UNIMPLEMENTED,
}
_VALID = request_of(x=np.ones((2, 3), np.float32)).SerializeToString()

names = st.sampled_from(["x", "double", "", "a" * 600, "\0", "é", "1"])
numbers = st.integers(-(2**31), 2**31 - 1)
many = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def parameters() -> st.SearchStrategy[dict[str, m.InferParameter]]:
    known = st.sampled_from(
        ["timeout", "sequence_id", "priority", "shared_memory_region", "own"]
    )
    value = st.one_of(
        st.builds(m.InferParameter, int64_param=numbers),
        st.builds(m.InferParameter, bool_param=st.booleans()),
        st.builds(m.InferParameter, string_param=names),
        st.builds(m.InferParameter, double_param=st.floats()),
        st.builds(m.InferParameter),
    )
    return st.dictionaries(known, value, max_size=2)


def contents() -> st.SearchStrategy[m.InferTensorContents]:
    return st.builds(
        m.InferTensorContents,
        fp32_contents=st.lists(st.floats(width=32), max_size=6),
        int_contents=st.lists(numbers, max_size=2),
        bytes_contents=st.lists(st.binary(max_size=3), max_size=1),
    )


inputs = st.builds(
    m.ModelInferRequest.InferInputTensor,
    name=names,
    datatype=st.sampled_from([*DATATYPES, "BYTES", "FP32", "fp32", ""]),
    shape=st.lists(st.sampled_from([0, 1, 2, 3, -1, 2**62]), max_size=4),
    parameters=parameters(),
    contents=st.none() | contents(),
)
requests = st.builds(
    m.ModelInferRequest,
    model_name=st.just("double") | names,
    model_version=st.sampled_from(["", "1", "x", "9" * 30]),
    id=names,
    parameters=parameters(),
    inputs=st.lists(inputs, max_size=3),
    outputs=st.lists(
        st.builds(m.ModelInferRequest.InferRequestedOutputTensor, name=names),
        max_size=2,
    ),
    raw_input_contents=st.lists(st.binary(max_size=24), max_size=3),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid request with bytes changed, taken out, or cut off."""
    data = bytearray(_VALID)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
        data = data or bytearray(1)
    return bytes(data[: draw(st.integers(0, len(data)))])


@pytest.fixture(scope="module")
def call(serve: Serve) -> Iterator[Line]:
    with serve(worker=Echo()) as server, line(server.address) as found:
        yield found


def code(call: Line, name: str, message: Any) -> StatusCode:
    try:
        call(name, message)
    except grpc.RpcError as error:
        return error.code()
    return StatusCode.OK


@many
@given(message=st.one_of(requests, damaged(), st.binary(max_size=200)))
def test_infer(call: Line, message: m.ModelInferRequest | bytes) -> None:
    assert code(call, "ModelInfer", message) in _FAIR


@many
@given(messages=st.lists(st.one_of(damaged(), st.binary(max_size=50)), max_size=8))
def test_stream(call: Line, messages: list[bytes]) -> None:
    """As many answers as requests; the stream never breaks."""
    answers = call.stream(messages, timeout=60)

    found = [m.ModelStreamInferResponse.FromString(answer) for answer in answers]

    assert len(found) == len(messages)
    assert not any("internal error" in one.error_message for one in found)


@many
@given(name=st.sampled_from(sorted(CALLS)), message=st.binary(max_size=50))
def test_other_calls(call: Line, name: str, message: bytes) -> None:
    assert code(call, name, message) in _FAIR
