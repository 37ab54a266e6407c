"""Every endpoint: what goes out, and what is made of the answer; both clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from nnz import (
    MatrixInfo,
    ModelInfo,
    ProtocolError,
    ServerInfo,
    SparseVector,
    TensorSpec,
)

MODEL = {
    "name": "m",
    "version": "2",
    "sha256": "ab",
    "bytes": 7,
    "state": "READY",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "y", "dtype": "FP32", "shape": [None, 2]}],
    "something new": 1,
}
MATRIX = {"id": "m-1", "name": None, "shape": [2, 3], "nnz": 4, "dtype": "FP64"}
JOB = {"id": "j/1", "kind": "cg", "status": "queued"}

REQUESTS = [
    ("GET", "/v2", lambda c: c.server.metadata(), {"name": "nnz", "version": "1"}),
    ("GET", "/v1/stats", lambda c: c.server.stats(), {"a": 1}),
    ("GET", "/v1/devices", lambda c: c.server.devices(), {"devices": []}),
    ("PUT", "/v1/models/m", lambda c: c.models.put("m", b"onnx"), MODEL),
    (
        "PUT",
        "/v1/models/m?version=2",
        lambda c: c.models.put("m", b"onnx", version=2),
        MODEL,
    ),
    ("GET", "/v1/models/a%2Fb", lambda c: c.models.get("a/b"), MODEL),
    ("GET", "/v1/models/m?version=2", lambda c: c.models.get("m", version="2"), MODEL),
    ("GET", "/v2/models/m", lambda c: c.models.signature("m"), MODEL),
    (
        "GET",
        "/v2/models/m/versions/2",
        lambda c: c.models.signature("m", version=2),
        MODEL,
    ),
    ("GET", "/v1/models", lambda c: c.models.list(), {"models": [MODEL]}),
    ("POST", "/v1/models/m/load", lambda c: c.models.load("m"), MODEL),
    ("POST", "/v1/models/m/unload", lambda c: c.models.unload("m"), MODEL),
    (
        "POST",
        "/v1/models/m/load?version=2",
        lambda c: c.models.load("m", version=2),
        MODEL,
    ),
    ("DELETE", "/v1/models/m", lambda c: c.models.delete("m"), None),
    ("DELETE", "/v1/models/m?version=1", lambda c: c.models.delete("m", version=1), 0),
    ("GET", "/v1/matrices/m-1", lambda c: c.matrices.get("m-1"), MATRIX),
    ("GET", "/v1/matrices", lambda c: c.matrices.list(), {"matrices": [MATRIX]}),
    ("DELETE", "/v1/matrices/m-1", lambda c: c.matrices.delete("m-1"), None),
    ("GET", "/v1/jobs/j%2F1", lambda c: c.jobs.get("j/1"), JOB),
    ("GET", "/v1/jobs", lambda c: c.jobs.list(), {"jobs": [JOB]}),
    ("GET", "/v1/jobs?limit=3", lambda c: c.jobs.list(limit=3), {"jobs": []}),
    (
        "GET",
        "/v1/jobs?status=running&kind=cg&before=j-9",
        lambda c: c.jobs.list(status="running", kind="cg", before="j-9"),
        {"jobs": [JOB]},
    ),
    ("POST", "/v1/jobs/j/cancel", lambda c: c.jobs.cancel("j"), JOB),
    ("DELETE", "/v1/jobs/j", lambda c: c.jobs.delete("j"), None),
]


@pytest.mark.parametrize(("verb", "path", "action", "reply"), REQUESTS)
def test_verb_and_path(
    connect: Any,
    fake: Any,
    verb: str,
    path: str,
    action: Callable[[Any], Any],
    reply: Any,
) -> None:
    server = fake(httpx2.Response(200, json=reply))

    action(connect(server))

    (request,) = server.requests
    assert request.method == verb
    assert request.url.raw_path.decode() == path


class TestServer:
    def test_metadata(self, connect: Any, fake: Any) -> None:
        reply = {"name": "nnz", "version": "1.2", "extensions": ["statistics"]}

        info = connect(fake(httpx2.Response(200, json=reply))).server.metadata()

        assert info == ServerInfo("nnz", "1.2", ("statistics",))

    @pytest.mark.parametrize(
        ("answer", "ready"),
        [
            pytest.param(httpx2.Response(200), True, id="ready"),
            pytest.param(httpx2.Response(503), False, id="starting"),
            pytest.param(httpx2.ConnectError("refused"), False, id="nobody"),
        ],
    )
    def test_ready_asks_once(
        self, connect: Any, fake: Any, answer: Any, ready: bool
    ) -> None:
        server = fake(answer)

        assert connect(server).server.ready() is ready
        assert len(server.requests) == 1


class TestModels:
    def test_put_sends_the_bytes(self, connect: Any, fake: Any) -> None:
        server = fake(httpx2.Response(201, json=MODEL))

        model = connect(server).models.put("m", b"\x08\x07onnx")

        assert server.bodies == [b"\x08\x07onnx"]
        assert server.requests[0].headers["Content-Length"] == "6"
        assert model.info == ModelInfo(
            name="m",
            version="2",
            state="READY",
            bytes=7,
            sha256="ab",
            inputs=(TensorSpec("x", "FP32", (None, 3)),),
            outputs=(TensorSpec("y", "FP32", (None, 2)),),
        )

    def test_put_streams_a_file(self, connect: Any, fake: Any, tmp_path: Path) -> None:
        content = np.random.default_rng(0).bytes(3_000_001)
        path = tmp_path / "a model.onnx"
        path.write_bytes(content)
        server = fake(httpx2.Response(503), httpx2.Response(201, json=MODEL))

        connect(server).models.put("m", path)

        assert server.bodies == [content, content]  # read anew for the retry
        assert server.requests[0].headers["Content-Length"] == "3000001"

    def test_a_missing_file_is_found_before_anything_is_sent(
        self, connect: Any, fake: Any
    ) -> None:
        server = fake(httpx2.Response(201, json=MODEL))

        with pytest.raises(FileNotFoundError, match=r"absent\.onnx"):
            connect(server).models.put("m", "absent.onnx")

        assert server.requests == []

    def test_an_answer_that_lacks_a_field(self, connect: Any, fake: Any) -> None:
        client = connect(fake(httpx2.Response(200, json={"models": [{}]})))

        with pytest.raises(ProtocolError, match="KeyError: 'name'"):
            client.models.list()

    def test_an_answer_that_is_no_json(self, connect: Any, fake: Any) -> None:
        client = connect(fake(httpx2.Response(200, content=b"<html>hello")))

        with pytest.raises(ProtocolError, match="is this the URL of an nnz server"):
            client.models.list()


class TestInfer:
    def test_named_arrays(
        self, connect: Any, fake: Any, answer_tensors: Callable[..., Any]
    ) -> None:
        server = fake(answer_tensors({"y": np.float32([[5, 6]])}))

        out = connect(server).infer(
            "m", {"x": np.float32([[1, 2]])}, outputs=["y"], version=3
        )

        assert server.requests[0].url.path == "/v2/models/m/versions/3/infer"
        assert server.json["outputs"] == [{"name": "y"}]
        assert server.tail == np.float32([1, 2]).tobytes()
        assert out["y"].tolist() == [[5, 6]]

    def test_a_bare_array_takes_the_models_only_input(
        self, connect: Any, fake: Any, answer_tensors: Callable[..., Any]
    ) -> None:
        server = fake(
            httpx2.Response(200, json=MODEL), answer_tensors({"y": np.float32([1])})
        )

        connect(server).infer("m", [[1, 2, 3]])

        paths = [request.url.path for request in server.requests]
        assert paths == ["/v2/models/m", "/v2/models/m/infer"]
        assert server.json["inputs"][0]["name"] == "x"
        assert server.json["inputs"][0]["datatype"] == "FP32"


class TestMatrices:
    def test_list(self, connect: Any, fake: Any) -> None:
        reply = {"matrices": [MATRIX]}

        infos = connect(fake(httpx2.Response(200, json=reply))).matrices.list()

        assert infos == [MatrixInfo("m-1", (2, 3), 4, "FP64")]


class TestOps:
    def test_axpy(
        self, connect: Any, fake: Any, answer_tensors: Callable[..., Any]
    ) -> None:
        server = fake(
            answer_tensors(
                {"w.indices": np.array([3, 1]), "w.values": np.array([2.0, 1])}
            )
        )

        w = connect(server).ops.axpy(
            ([3], [1.0]), -2, (np.array([1]), np.array([4])), zeros="drop_exact"
        )

        assert server.requests[0].url.path == "/v1/ops/axpy"
        assert server.json["parameters"] == {
            "r": -2.0,
            "zeros": "drop_exact",
            "duplicates": "sum",
            "binary_data_output": True,
        }
        names = [entry["name"] for entry in server.json["inputs"]]
        assert names == ["u.indices", "u.values", "v.indices", "v.values"]
        assert (w.indices.tolist(), w.values.tolist(), w.size) == ([3, 1], [2, 1], None)

    def test_dimensions_must_agree(self, connect: Any, fake: Any) -> None:
        u = SparseVector(np.array([1]), np.array([1.0]), 5)
        v = SparseVector(np.array([1]), np.array([1.0]), 6)

        with pytest.raises(ValueError, match="u has dimension 5 and v 6"):
            connect(fake(httpx2.Response(200))).ops.dot(u, v)

    def test_dot(
        self, connect: Any, fake: Any, answer_tensors: Callable[..., Any]
    ) -> None:
        server = fake(answer_tensors({"dot": np.array([1.5])}))

        assert connect(server).ops.dot(([0], [3.0]), ([0], [0.5])) == 1.5
        assert server.requests[0].url.path == "/v1/ops/dot"

    def test_an_answer_without_the_output(
        self, connect: Any, fake: Any, answer_tensors: Callable[..., Any]
    ) -> None:
        client = connect(fake(answer_tensors({"y": np.array([1.5])})))

        with pytest.raises(ProtocolError, match=r"\['y'\], not 'dot'"):
            client.ops.dot(([0], [3.0]), ([0], [0.5]))
