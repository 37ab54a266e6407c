"""Bodies of tensors, read without a server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from nnz_service.errors import ImpossibleError, MalformedError, ServiceError
from nnz_service.servable import DATATYPES
from nnz_service.web import answers
from nnz_service.web.answers import _PIECE, tensor_answer
from nnz_service.web.codecs import Body, TensorRequest, read_raw, read_tensors

MAX_JSON = 1 << 20


def message(arrays: dict[str, np.ndarray], *, binary: set[str]) -> Body:
    """Write tensors, some as bytes and the others as JSON."""
    names = {dtype: name for name, dtype in DATATYPES.items()}
    inputs: list[dict[str, Any]] = []
    tail = b""
    for name, array in arrays.items():
        entry = {
            "name": name,
            "shape": list(array.shape),
            "datatype": names[array.dtype],
        }
        if name in binary:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            tail += array.tobytes()
        else:
            entry["data"] = array.tolist()
        inputs.append(entry)
    text = json.dumps({"inputs": inputs}).encode()
    return Body(memoryview(text + tail), len(text) if binary else None)


class TestReadTensors:
    @pytest.mark.parametrize("name", DATATYPES)
    def test_every_datatype(self, name: str) -> None:
        """Each type comes back bit for bit, as bytes and, where allowed, as JSON."""
        array = np.array([[0, 1, 1], [1, 0, 1]], DATATYPES[name])

        for binary in ({"a"}, set()):
            if name == "FP16" and not binary:
                continue
            found = read_tensors(message({"a": array}, binary=binary), MAX_JSON)
            np.testing.assert_array_equal(found.tensors["a"], array)
            assert found.tensors["a"].dtype == array.dtype
            assert found.binary == bool(binary)

    @pytest.mark.parametrize("name", ["INT8", "INT64", "UINT64", "FP32", "FP64"])
    def test_extremes(self, name: str) -> None:
        """The ends of a type's range survive JSON."""
        dtype = DATATYPES[name]
        info = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        array = np.array([info.min, info.max], dtype)

        found = read_tensors(message({"a": array}, binary=set()), MAX_JSON)

        np.testing.assert_array_equal(found.tensors["a"], array)

    def test_mixed(self) -> None:
        """JSON and binary tensors in one body, whatever their alignment."""
        arrays = {
            "a": np.arange(3, dtype=np.int8),
            "b": np.arange(4.0).reshape(2, 2),
            "c": np.arange(5, dtype=np.int32),
            "d": np.empty((0, 2**40), np.float32),
        }

        found = read_tensors(message(arrays, binary={"a", "c", "d"}), MAX_JSON)

        for name, array in arrays.items():
            np.testing.assert_array_equal(found.tensors[name], array)
            assert found.tensors[name].flags.aligned

    def test_no_copy(self) -> None:
        """An aligned binary tensor is a view of the body."""
        text = json.dumps(
            {
                "inputs": [
                    {
                        "name": "a",
                        "shape": [4],
                        "datatype": "FP32",
                        "parameters": {"binary_data_size": 16},
                    }
                ]
            }
        ).encode()
        store = np.zeros(1024 // 8)
        raw = store.view(np.uint8)
        raw[64 - len(text) % 64 :][: len(text)] = np.frombuffer(text, np.uint8)
        data = memoryview(raw)[64 - len(text) % 64 :][: len(text) + 16]

        found = read_tensors(Body(data, len(text)), MAX_JSON)

        assert np.shares_memory(found.tensors["a"], store)

    def test_long_text(self) -> None:
        """A long string among many numbers costs no more than its own size."""
        data = ["x" * 500_000, *range(100_000)]
        text = json.dumps(
            {"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": data}]}
        ).encode()

        with pytest.raises(MalformedError, match="needs 1"):
            read_tensors(Body(memoryview(text)), 4 << 20)

    def test_other_members(self) -> None:
        """What is not about tensors is kept for the route."""
        text = (
            b'{"kind":"cg","id":"7","inputs":[{"name":"a","shape":[1],'
            b'"datatype":"FP32","data":[1]}]}'
        )

        found = read_tensors(Body(memoryview(text)), MAX_JSON)

        assert found.fields == {"kind": "cg", "id": "7"}
        assert found.id == "7"

    def test_numbers_that_requests_share_cannot_change(self) -> None:
        """What short JSON said is remembered, with the numbers in it."""
        rows = [
            {"name": "a", "shape": [2], "datatype": "FP32", "data": [1, 2]},
            {
                "name": "b", "shape": [1], "datatype": "INT8",
                "parameters": {"binary_data_size": 1},
            },
        ]  # fmt: skip
        text = json.dumps({"inputs": rows}).encode()
        for last in (3, 4):
            found = read_tensors(
                Body(memoryview(text + bytes([last])), len(text)), MAX_JSON
            )
            assert found.tensors["a"].tolist() == [1, 2]
            assert found.tensors["b"].tolist() == [last]
            with pytest.raises(ValueError, match="read-only"):
                found.tensors["a"][0] = 9


class TestReadRaw:
    @pytest.mark.parametrize(
        ("shape", "size", "want"),
        [
            ([3], 12, [3]),
            ([-1, 3], 24, [2, 3]),
            ([2, -1], 24, [2, 3]),
            ([-1, 3], 0, [0, 3]),
        ],
    )
    def test_shapes(self, shape: list[int], size: int, want: list[int]) -> None:
        """The free extent follows from the number of bytes."""
        found = read_raw(Body(memoryview(bytes(size)), 0), "x", "FP32", shape)

        assert list(found.tensors["x"].shape) == want

    @pytest.mark.parametrize(
        ("shape", "size"),
        [([3], 8), ([3], 24), ([-1, 3], 13), ([-1, -1], 12), ([0, -1], 4)],
    )
    def test_refused(self, shape: list[int], size: int) -> None:
        """Bytes that fit no shape, and shapes that bytes cannot tell, are refused."""
        with pytest.raises(ServiceError) as caught:
            read_raw(Body(memoryview(bytes(size)), 0), "x", "FP32", shape)
        assert caught.value.status in (400, 422)


class TestTensorAnswer:
    async def test_order(self) -> None:
        """Binary outputs follow the JSON in its order; others stay in it."""
        asked = TensorRequest({}, {"binary_data_output": True}, {}, (), False)
        arrays = {
            "b": np.arange(6, dtype=np.float64).reshape(3, 2).T,
            "a": np.array(7, np.int32),
            "none": np.empty((0, 3), np.float32),
        }

        answer = await tensor_answer({"x": 1}, arrays, asked)

        split = int(answer.headers["Inference-Header-Content-Length"])
        assert split % 64 == 0  # so that the first tensor can be read where it lies
        head = json.loads(b"".join(answer.pieces)[:split])
        sizes = [row["parameters"]["binary_data_size"] for row in head["outputs"]]
        assert sizes == [48, 4, 0]
        tail = b"".join(answer.pieces)[split:]
        np.testing.assert_array_equal(
            np.frombuffer(tail[:48]).reshape(2, 3), arrays["b"]
        )
        assert tail[48:] == np.array(7, np.int32).tobytes()
        assert int(answer.headers["content-length"]) == sum(map(len, answer.pieces))

    async def test_json_has_no_parameters(self) -> None:
        """An empty `parameters` breaks the C++ client, so there is none."""
        asked = TensorRequest({}, {}, {}, (), False)

        answer = await tensor_answer({}, {"a": np.array([0.1], np.float32)}, asked)

        assert json.loads(b"".join(answer.pieces)) == {
            "outputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": [0.1]}]
        }
        assert answer.headers["content-type"] == "application/json"

    @pytest.mark.parametrize("kind", ["f8", "f4", "i8", "?"])
    async def test_many_json_numbers_are_what_they_were(self, kind: str) -> None:
        """They are written in pieces, so that others go on meanwhile."""
        x = np.random.default_rng(1).standard_normal(2 * _PIECE + 1).astype(kind)
        asked = TensorRequest({}, {}, {}, (), False)

        answer = await tensor_answer({}, {"a": x[:_PIECE], "b": x}, asked)

        outputs = json.loads(b"".join(answer.pieces))["outputs"]
        for output, right in zip(outputs, (x[:_PIECE], x), strict=True):
            np.testing.assert_array_equal(np.array(output["data"], kind), right)

    async def test_too_many_numbers_for_json(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A few bytes may ask for any number; as bytes they come."""
        monkeypatch.setattr(answers, "_MOST_NUMBERS", 5)
        arrays = {"a": np.ones(3), "b": np.ones(3)}
        asked = TensorRequest({}, {}, {}, (), False)

        with pytest.raises(
            ImpossibleError, match=r"6 numbers, .* up to 5; ask for binary"
        ):
            await tensor_answer({}, arrays, asked)
        answer = await tensor_answer({}, arrays, asked, binary_default=True)
        assert b"".join(answer.pieces).endswith(np.ones(6).tobytes())
