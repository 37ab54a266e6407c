from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from nnz import ProtocolError
from nnz._tensors import JSON_LENGTH, as_tensor, decode, encode, type_name

DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


def sent(**tensors: Any) -> tuple[dict[str, Any], bytes]:
    headers, content = encode(tensors)
    body = b"".join(content.open())
    assert len(body) == content.length
    split = int(headers[JSON_LENGTH])
    return json.loads(body[:split]), body[split:]


def echoed(**tensors: Any) -> dict[str, Any]:
    """What comes back from a server that answers with its inputs."""
    head, tail = sent(**tensors)
    text = json.dumps({"outputs": head["inputs"]}).encode()
    return decode({JSON_LENGTH: str(len(text))}, bytearray(text + tail))[1]


class TestEncode:
    def test_by_hand(self) -> None:
        headers, content = encode(
            {"x": np.array([[1, -2]], dtype="<i2"), "m": np.array([True, False])},
            parameters={"size": 3, "absent": None},
            outputs=["y"],
            fields={"kind": "cg"},
        )

        body = b"".join(content.open())
        split = int(headers[JSON_LENGTH])
        assert json.loads(body[:split]) == {
            "kind": "cg",
            "parameters": {"size": 3, "binary_data_output": True},
            "inputs": [
                {
                    "name": "x",
                    "shape": [1, 2],
                    "datatype": "INT16",
                    "parameters": {"binary_data_size": 4},
                },
                {
                    "name": "m",
                    "shape": [2],
                    "datatype": "BOOL",
                    "parameters": {"binary_data_size": 2},
                },
            ],
            "outputs": [{"name": "y"}],
        }
        assert body[split:] == b"\x01\x00\xfe\xff\x01\x00"
        assert headers["Content-Type"] == "application/octet-stream"

    def test_tensors_start_on_a_cache_line(self) -> None:
        for name in ("x", "a longer name", "y" * 50):
            headers, _ = encode({name: np.zeros(3)})
            assert int(headers[JSON_LENGTH]) % 64 == 0

    def test_a_large_array_is_not_copied(self) -> None:
        array = np.zeros(1 << 19)
        _, content = encode({"x": array})

        chunks = list(content.open())[1:]

        assert len(chunks) == 4
        assert all(np.shares_memory(np.frombuffer(c, "u1"), array) for c in chunks)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_parameters_are_finite(self, value: float) -> None:
        with pytest.raises(ValueError, match=f"rtol is {value}, but must be finite"):
            encode({}, parameters={"matrix": "m", "rtol": value})

    def test_can_be_sent_twice(self) -> None:
        for size in (3, 1 << 19):
            _, content = encode({"x": np.arange(float(size))})
            assert b"".join(content.open()) == b"".join(content.open())

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(np.array([1j]), id="complex"),
            pytest.param(np.array([{}], dtype=object), id="object"),
            pytest.param(np.array(["a"]), id="text"),
            pytest.param(np.array(["2026-01-01"], "M8[D]"), id="date"),
            pytest.param(np.zeros(1, [("a", "f4")]), id="record"),
            pytest.param(np.zeros(1, np.longdouble), id="longdouble"),
        ],
    )
    def test_says_which_types_can_be_sent(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"cannot be sent; convert .* float64"):
            encode({"x": value})

    def test_ragged_lists_are_refused(self) -> None:
        with pytest.raises(ValueError, match="inhomogeneous"):
            encode({"x": [[1], [2, 3]]})


class TestAsTensor:
    def test_keeps_an_array_that_is_right(self) -> None:
        array = np.zeros((2, 3), np.float32)

        assert as_tensor(array) is array

    def test_names_every_type(self) -> None:
        assert [type_name(np.dtype(d)) for d in ("f2", ">i4", "?")] == [
            "FP16",
            "INT32",
            "BOOL",
        ]


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 5)], ids=str)
    def test_every_type_and_shape(self, dtype: str, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(3)
        array = rng.integers(0, 2, shape).astype(dtype)

        out = echoed(a=array, b=array)

        for name in ("a", "b"):
            assert out[name].dtype == array.dtype
            assert out[name].shape == shape
            np.testing.assert_array_equal(out[name], array)

    @pytest.mark.parametrize(
        "array",
        [
            pytest.param(np.arange(12.0).reshape(3, 4).T, id="Fortran order"),
            pytest.param(np.arange(12.0)[::-2], id="negative stride"),
            pytest.param(np.arange(12, dtype=">i4"), id="big-endian"),
            pytest.param(np.broadcast_to(np.float32(2), (3, 3)), id="broadcast"),
            pytest.param(np.array([np.nan, -0.0, np.inf]), id="not finite"),
        ],
    )
    def test_any_memory_layout(self, array: np.ndarray[Any, Any]) -> None:
        out = echoed(x=array)["x"]

        np.testing.assert_array_equal(out, array)
        assert out.dtype == array.dtype.newbyteorder("<")

    def test_read_only_arrays_can_be_sent(self) -> None:
        array = np.arange(3.0)
        array.flags.writeable = False

        np.testing.assert_array_equal(echoed(x=array)["x"], array)

    def test_answers_are_writable_and_aligned(self) -> None:
        out = echoed(pad=np.zeros(3, np.int8), x=np.arange(4.0))["x"]

        assert out.flags.aligned
        out += 1
        assert out.tolist() == [1, 2, 3, 4]


class TestDecode:
    def test_json_data(self) -> None:
        text = json.dumps(
            {
                "outputs": [
                    {
                        "name": "y",
                        "datatype": "FP32",
                        "shape": [2, 2],
                        "data": [1, 2, 3, 4],
                    }
                ]
            }
        )

        head, out = decode({}, bytearray(text.encode()))

        assert head["outputs"][0]["name"] == "y"
        assert out["y"].dtype == np.float32
        assert out["y"].tolist() == [[1, 2], [3, 4]]

    @pytest.mark.parametrize(
        ("output", "tail", "message"),
        [
            pytest.param(
                {
                    "shape": [2],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": 8},
                },
                b"1234",
                "needs 8 bytes; 8 are declared and 4 came",
                id="cut off",
            ),
            pytest.param(
                {
                    "shape": [2],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": 4},
                },
                b"1234",
                "needs 8 bytes; 4 are declared",
                id="size and shape differ",
            ),
            pytest.param(
                {
                    "shape": [2],
                    "datatype": "BF16",
                    "parameters": {"binary_data_size": 4},
                },
                b"1234",
                "'BF16' is not one of",
                id="unknown type",
            ),
            pytest.param(
                {"shape": [3], "datatype": "FP32", "data": [1, 2]},
                b"",
                "not a tensor message",
                id="numbers missing",
            ),
            pytest.param({"shape": [1]}, b"", "KeyError: 'datatype'", id="no type"),
        ],
    )
    def test_a_broken_answer_is_a_protocol_error(
        self, output: dict[str, Any], tail: bytes, message: str
    ) -> None:
        text = json.dumps({"outputs": [{"name": "y", **output}]}).encode()

        with pytest.raises(ProtocolError, match=message):
            decode({JSON_LENGTH: str(len(text))}, bytearray(text + tail))

    @pytest.mark.parametrize(
        ("headers", "body"),
        [
            pytest.param({}, b"<html>", id="not JSON"),
            pytest.param({}, b"[]", id="no object"),
            pytest.param({}, b"{}", id="no outputs"),
            pytest.param({JSON_LENGTH: "x"}, b"{}", id="no number"),
        ],
    )
    def test_something_else_entirely(
        self, headers: dict[str, str], body: bytes
    ) -> None:
        with pytest.raises(ProtocolError, match="not a tensor message"):
            decode(headers, bytearray(body))
