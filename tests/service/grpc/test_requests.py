"""Typed contents of every kind, and each way to get a request wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from service.grpc.serving import request_of

from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.grpc.contents import _FIELDS
from nnz_service.grpc.protocol import messages as m
from nnz_service.grpc.requests import Asked, read_request
from nnz_service.grpc.wire import split
from nnz_service.servable import DATATYPES

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def read(request: m.ModelInferRequest) -> Asked:
    """Read a request as it is read on its way in."""
    description, raw = split(request.SerializeToString(), 1 << 20)
    return read_request(m.ModelInferRequest.FromString(description), raw)


def typed(datatype: str, field: str, values: list[Any]) -> m.ModelInferRequest:
    request = m.ModelInferRequest(model_name="m")
    entry = request.inputs.add(name="x", datatype=datatype, shape=[len(values)])
    getattr(entry.contents, field).extend(values)
    return request


class TestTyped:
    @pytest.mark.parametrize("datatype", sorted(DATATYPES.keys() - {"FP16"}))
    def test_every_datatype(self, datatype: str) -> None:
        """Each in its field, up to the ends of its range."""
        dtype = DATATYPES[datatype]
        values = {"b": [True, False], "f": [0.5, np.inf, -2.0]}.get(dtype.kind)
        if values is None:
            values = [int(np.iinfo(dtype).min), 1, int(np.iinfo(dtype).max)]

        (x,) = read(typed(datatype, _FIELDS[datatype][0], values)).tensors.values()

        assert x.dtype == dtype
        assert x.tolist() == values

    @pytest.mark.parametrize(
        ("datatype", "field", "value"),
        [
            ("INT8", "int_contents", 128),
            ("INT16", "int_contents", -32769),
            ("UINT8", "uint_contents", 256),
            ("UINT16", "uint_contents", 65536),
        ],
    )
    def test_out_of_range(self, datatype: str, field: str, value: int) -> None:
        with pytest.raises(MalformedError, match=f"{datatype} holds"):
            read(typed(datatype, field, [0, value]))

    def test_wrong_field(self) -> None:
        with pytest.raises(MalformedError, match="FP32 belongs into fp32_contents"):
            read(typed("FP32", "fp64_contents", [1.0]))

    def test_half_precision(self) -> None:
        with pytest.raises(ImpossibleError, match="FP16 has no typed contents"):
            read(typed("FP16", "fp32_contents", [1.0]))

    def test_no_elements(self) -> None:
        """A tensor without elements needs no contents."""
        assert read(typed("FP32", "fp32_contents", [])).tensors["x"].shape == (0,)


def twice_named(request: m.ModelInferRequest) -> None:
    request.inputs.append(request.inputs[0])


def no_value(request: m.ModelInferRequest) -> None:
    request.parameters["p"].SetInParent()


Change = Callable[[m.ModelInferRequest], object]


class TestWrong:
    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            (lambda r: r.ClearField("inputs"), "at least one tensor"),
            (lambda r: r.ClearField("raw_input_contents"), "has 0 numbers in fp32_con"),
            (twice_named, "'x' was used before"),
            (no_value, "parameters.p has no value"),
            (lambda r: r.raw_input_contents.append(b""), "2 entries for 1 inputs"),
            (lambda r: r.inputs[0].contents.fp32_contents.append(1), "has both"),
            (
                lambda r: r.inputs[0].shape.append(2),
                r"24 bytes in raw_input_.* needs 48",
            ),
            (lambda r: r.inputs[0].shape.append(-1), "negative extent"),
            (lambda r: r.inputs[0].shape.extend([1] * 31), "33 extents"),
            (lambda r: r.inputs[0].shape.extend([2**40] * 2), "too large to address"),
            (lambda r: setattr(r.inputs[0], "name", ""), r"inputs\[0\].name must"),
            (lambda r: setattr(r.inputs[0], "datatype", "FP33"), "must be one of"),
            (lambda r: setattr(r, "id", "i" * 513), "'id' must"),
            (lambda r: r.outputs.add(name="a\0"), r"outputs\[0\].name must"),
        ],
    )
    def test_malformed(self, change: Change, problem: str) -> None:
        """The error says what, where, and what would be right."""
        request = request_of(x=X)
        change(request)

        with pytest.raises(MalformedError, match=problem):
            read(request)

    @pytest.mark.parametrize("datatype", ["BYTES", "BF16"])
    def test_types_that_nobody_takes(self, datatype: str) -> None:
        request = request_of(x=X)
        request.inputs[0].datatype = datatype

        with pytest.raises(ImpossibleError, match=datatype):
            read(request)

    def test_truth_values(self) -> None:
        """A byte of a BOOL is 0 or 1."""
        request = request_of(x=np.zeros(2, np.bool_))
        request.raw_input_contents[0] = b"\1\2"

        with pytest.raises(MalformedError, match="BOOL byte"):
            read(request)
