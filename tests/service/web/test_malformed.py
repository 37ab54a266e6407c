"""What a careless or hostile client may send: each gets its code and a reason."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import httpx2
import numpy as np
import pytest

INFER = "/v2/models/double/infer"
GOOD = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
BINARY = {"name": "x", "shape": [1, 3], "datatype": "FP32"}
LENT = {"shared_memory_region": "r", "shared_memory_byte_size": 12}
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture
def http(server: str):
    with httpx2.Client(base_url=f"http://{server}", timeout=30) as client:
        yield client


def body(**changes: Any) -> bytes:
    return json.dumps({"inputs": [{**GOOD, **changes}]}).encode()


def without(key: str) -> bytes:
    entry = {name: value for name, value in GOOD.items() if name != key}
    return json.dumps({"inputs": [entry]}).encode()


def error(answer: httpx2.Response) -> str:
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    return str(answer.json()["error"])


class TestJson:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            pytest.param(b"", "empty", id="empty body"),
            pytest.param(b"{", "not valid JSON", id="cut off"),
            pytest.param(b"[]", "array; it must be an object", id="array"),
            pytest.param(b"null", "null", id="null"),
            pytest.param(b"\xff\xfe", "UTF-8", id="not UTF-8"),
            pytest.param(b"[" * 5000 + b"]" * 5000, "depth", id="too deep"),
            pytest.param(body(data=[float("nan"), 1, 2]), "JSON", id="NaN"),
            pytest.param(b"{}", "'inputs'", id="no inputs"),
            pytest.param(b'{"inputs": []}', "at least one", id="no input"),
            pytest.param(b'{"inputs": {}}', "'inputs'", id="inputs no list"),
            pytest.param(b'{"inputs": [7]}', "inputs[0]", id="input no object"),
            pytest.param(without("name"), "inputs[0].name", id="no name"),
            pytest.param(body(name=""), "inputs[0].name", id="empty name"),
            pytest.param(body(name="x\0y"), "NUL", id="NUL in name"),
            pytest.param(body(name=7), "inputs[0].name", id="number as name"),
            pytest.param(without("shape"), "'shape'", id="no shape"),
            pytest.param(body(shape="3"), "'shape'", id="text as shape"),
            pytest.param(body(shape=[1.5, 2]), "'shape'", id="fraction in shape"),
            pytest.param(body(shape=[True, 3]), "'shape'", id="boolean in shape"),
            pytest.param(body(shape=[-1, 3]), "negative", id="negative extent"),
            pytest.param(body(shape=[1] * 100), "extents", id="too many extents"),
            pytest.param(body(shape=[2**40] * 3), "too large", id="overflow"),
            pytest.param(body(shape=[2**62, 0]), "too large", id="overflow of none"),
            pytest.param(body(shape=[10**30, 0]), "", id="beyond 64 bits"),
            pytest.param(without("datatype"), "datatype", id="no datatype"),
            pytest.param(body(datatype="FLOAT"), "FP32", id="unknown datatype"),
            pytest.param(body(datatype=["FP32"]), "datatype", id="list as datatype"),
            pytest.param(without("data"), "neither", id="no data"),
            pytest.param(body(data=5), "list", id="scalar as data"),
            pytest.param(body(data=[1, 2]), "needs 3", id="too few"),
            pytest.param(body(data=[[1], [2, 3]]), "ragged", id="ragged"),
            pytest.param(body(data=[1, [2, 3]]), "ragged", id="mixed depth"),
            pytest.param(body(data=[[1], [2], [3]]), "nested", id="wrong nesting"),
            pytest.param(body(data=[1, "2", 3]), "numbers", id="text among numbers"),
            pytest.param(body(data=[1, None, 3]), "numbers", id="null among numbers"),
            pytest.param(body(data=[1, True, 3]), "numbers", id="boolean as number"),
            pytest.param(body(data=[1, 2, 1e300]), "too large", id="not in FP32"),
            pytest.param(
                body(data=[1, 2, 3.5], datatype="INT32"), "3.5", id="fraction as INT"
            ),
            pytest.param(
                body(data=[1, 2, 300], datatype="INT8"), "-128 to 127", id="not in INT8"
            ),
            pytest.param(
                body(data=[0, 1, 2], datatype="BOOL"), "true or false", id="not BOOL"
            ),
            pytest.param(body(parameters=[]), "parameters", id="parameters no object"),
            pytest.param(
                json.dumps({"inputs": [GOOD, GOOD]}).encode(), "before", id="twice"
            ),
            pytest.param(
                json.dumps({"inputs": [GOOD], "id": 7}).encode(), "'id'", id="id"
            ),
            pytest.param(
                json.dumps({"inputs": [GOOD], "parameters": {"timeout": -1}}).encode(),
                "microseconds",
                id="negative timeout",
            ),
        ],
    )
    def test_unreadable(self, http: httpx2.Client, content: bytes, reason: str) -> None:
        """A body that contradicts the protocol or itself is a 400."""
        answer = http.post(INFER, content=content)

        assert answer.status_code == 400
        assert reason in error(answer)

    @pytest.mark.parametrize(
        ("outputs", "code", "reason"),
        [
            pytest.param({}, 400, "list", id="no list"),
            pytest.param(["y"], 400, "outputs[0]", id="names only"),
            pytest.param([{"name": "y"}, {"name": "y"}], 400, "before", id="twice"),
            pytest.param([{"name": "z"}], 422, "only output", id="unknown"),
            pytest.param(
                [{"name": "y", "parameters": {"binary_data": 1}}],
                400,
                "true",
                id="flag",
            ),
            pytest.param(
                [{"name": "y", "parameters": {"classification": 3}}],
                422,
                "classification",
                id="classification",
            ),
            pytest.param(
                [{"name": "y", "parameters": LENT}],
                422,
                "shared memory",
                id="shared memory",
            ),
        ],
    )
    def test_outputs(
        self, http: httpx2.Client, outputs: Any, code: int, reason: str
    ) -> None:
        """Wishes about outputs are checked too."""
        answer = http.post(INFER, json={"inputs": [GOOD], "outputs": outputs})

        assert answer.status_code == code
        assert reason in error(answer)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            pytest.param({"datatype": "BYTES", "data": ["a"]}, "strings", id="BYTES"),
            pytest.param({"datatype": "BF16"}, "FP32", id="BF16"),
            pytest.param({"datatype": "FP16"}, "binary", id="FP16 as JSON"),
            pytest.param({"name": "z"}, "takes x", id="another name"),
            pytest.param({"shape": [3], "data": [1, 2, 3]}, "want", id="another shape"),
            pytest.param({"datatype": "FP64"}, "float64", id="another type"),
            pytest.param(
                {"parameters": LENT, "data": None},
                "shared memory",
                id="shared memory",
            ),
        ],
    )
    def test_impossible(
        self, http: httpx2.Client, changes: dict[str, Any], reason: str
    ) -> None:
        """What can be read but not done is a 422."""
        answer = http.post(INFER, content=body(**changes))

        assert answer.status_code == 422
        assert reason in error(answer)

    def test_nested(self, http: httpx2.Client) -> None:
        """Nested and flat data mean the same; the answer is flat."""
        answer = http.post(INFER, content=body(data=[[1, 2, 3]]))

        assert answer.json()["outputs"] == [
            {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [2.0, 4.0, 6.0]}
        ]

    def test_overflow_in_answer(self, http: httpx2.Client) -> None:
        """An infinity has no JSON form: refused with advice, never null."""
        entry = {**GOOD, "data": [1.0, 3e38, 2.0]}

        refused = http.post(INFER, json={"inputs": [entry]})
        binary = http.post(
            INFER, json={"inputs": [entry], "parameters": {"binary_data_output": True}}
        )

        assert refused.status_code == 422
        assert "flat index 1" in error(refused)
        split = int(binary.headers[LENGTH])
        assert np.frombuffer(binary.content[split:], np.float32)[1] == np.inf

    def test_json_limit(self, http: httpx2.Client) -> None:
        """JSON tensors end at max_json; the answer says how to send more."""
        answer = http.post(INFER, content=body() + b" " * (4 << 20))

        assert answer.status_code == 413
        assert "binary" in error(answer)


def binary_body(entry: dict[str, Any], tail: bytes) -> tuple[bytes, dict[str, str]]:
    text = json.dumps({"inputs": [entry]}).encode()
    return text + tail, {LENGTH: str(len(text))}


class TestBinary:
    @pytest.mark.parametrize(
        ("entry", "tail", "reason"),
        [
            pytest.param({"binary_data_size": 12}, b"0" * 8, "8 of the 8", id="short"),
            pytest.param({"binary_data_size": 12}, b"0" * 16, "account", id="long"),
            pytest.param({"binary_data_size": 8}, b"0" * 8, "needs 12", id="size"),
            pytest.param({"binary_data_size": -12}, b"", "needs 12", id="negative"),
            pytest.param({"binary_data_size": "12"}, b"0" * 12, "needs 12", id="text"),
            pytest.param({"binary_data_size": 2**70}, b"", "", id="huge"),
            pytest.param({}, b"0" * 12, "neither", id="no size"),
        ],
    )
    def test_wrong_sizes(
        self, http: httpx2.Client, entry: dict[str, Any], tail: bytes, reason: str
    ) -> None:
        """Bytes and sizes that disagree are a 400 with the numbers."""
        content, headers = binary_body({**BINARY, "parameters": entry}, tail)

        answer = http.post(INFER, content=content, headers=headers)

        assert answer.status_code == 400
        assert reason in error(answer)

    @pytest.mark.parametrize(
        "length", ["-1", "999999", "x", "1.5", "", "9" * 40, "0x10"]
    )
    def test_header_length_out_of_range(self, http: httpx2.Client, length: str) -> None:
        """A header length that is no number or passes the body is a 400."""
        answer = http.post(INFER, content=body(), headers={LENGTH: length})

        assert answer.status_code == 400
        assert LENGTH in error(answer)

    def test_all_json_with_length(self, http: httpx2.Client) -> None:
        """The C++ client sends the header even when nothing follows the JSON."""
        answer = http.post(INFER, content=body(), headers={LENGTH: str(len(body()))})

        assert answer.status_code == 200

    def test_both_forms(self, http: httpx2.Client) -> None:
        """One tensor cannot be JSON and binary."""
        entry = {**GOOD, "parameters": {"binary_data_size": 12}}
        content, headers = binary_body(entry, b"0" * 12)

        answer = http.post(INFER, content=content, headers=headers)

        assert answer.status_code == 400
        assert "both" in error(answer)

    def test_bool(self, http: httpx2.Client) -> None:
        """A BOOL byte other than 0 and 1 is refused before numpy sees it."""
        entry = {**BINARY, "datatype": "BOOL", "parameters": {"binary_data_size": 3}}
        content, headers = binary_body(entry, b"\x00\x01\x02")

        answer = http.post(INFER, content=content, headers=headers)

        assert answer.status_code == 400
        assert "0 or 1" in error(answer)

    def test_raw(self, http: httpx2.Client) -> None:
        """Header length 0: the body is the bytes of the only input."""
        x = np.arange(6, dtype=np.float32)

        answer = http.post(INFER, content=x.tobytes(), headers={LENGTH: "0"})

        split = int(answer.headers[LENGTH])
        assert answer.headers["content-type"] == "application/octet-stream"
        assert json.loads(answer.content[:split])["outputs"][0]["shape"] == [2, 3]
        y = np.frombuffer(answer.content[split:], np.float32)
        np.testing.assert_array_equal(y, 2 * x)

    def test_raw_wrong_size(self, http: httpx2.Client) -> None:
        """Raw bytes that fill no whole row are a 400."""
        answer = http.post(INFER, content=b"0" * 13, headers={LENGTH: "0"})

        assert answer.status_code == 400
        assert "multiple of 12" in error(answer)


class TestEncoding:
    @pytest.mark.parametrize(
        ("encoding", "content", "code"),
        [
            pytest.param("br", body(), 415, id="unknown"),
            pytest.param("gzip, deflate", body(), 415, id="two"),
            pytest.param("gzip", body(), 400, id="not gzip"),
            pytest.param("deflate", gzip.compress(body()), 400, id="wrong container"),
            pytest.param("gzip", gzip.compress(body())[:-6], 400, id="cut off"),
            pytest.param("gzip", gzip.compress(body()) + b"x", 400, id="tail"),
            pytest.param("gzip", gzip.compress(body()) * 2, 400, id="two members"),
            pytest.param("gzip", b"", 400, id="empty"),
            pytest.param("gzip", gzip.compress(bytes(65 << 20), 9), 413, id="bomb"),
            pytest.param("deflate", zlib.compress(bytes(65 << 20), 9), 413, id="zbomb"),
            pytest.param("gzip", gzip.compress(body()), 200, id="gzip"),
            pytest.param("x-gzip", gzip.compress(body()), 200, id="x-gzip"),
            pytest.param("deflate", zlib.compress(body()), 200, id="deflate"),
            pytest.param("identity", body(), 200, id="identity"),
        ],
    )
    def test_request(
        self, http: httpx2.Client, encoding: str, content: bytes, code: int
    ) -> None:
        """Known encodings are undone under the limit, others refused."""
        headers = {"Content-Encoding": encoding}

        answer = http.post(INFER, content=content, headers=headers)

        assert answer.status_code == code, answer.text
        if code != 200:
            assert error(answer)

    @pytest.mark.parametrize(
        ("accept", "encoding"),
        [
            ("gzip", "gzip"),
            ("deflate, gzip", "deflate"),
            ("deflate;q=0.5, gzip;q=0.9", "gzip"),
            ("gzip;q=0", None),
            ("identity, gzip", None),
            ("gzip;q=x", None),
            ("br", None),
            ("", None),
        ],
    )
    def test_answer(
        self, http: httpx2.Client, accept: str, encoding: str | None
    ) -> None:
        """Accept-Encoding is honoured with its weights, for gzip and deflate."""
        entry = {**GOOD, "shape": [100, 3], "data": [1.0] * 300}
        headers = {"Accept-Encoding": accept}

        answer = http.post(INFER, json={"inputs": [entry]}, headers=headers)

        assert answer.headers.get("content-encoding") == encoding
        assert answer.json()["outputs"][0]["data"] == [2.0] * 300


class TestRouting:
    @pytest.mark.parametrize(
        ("method", "path", "allow"),
        [
            ("GET", INFER, "POST"),
            ("DELETE", "/v2", "GET"),
            ("PUT", "/v2/logging", "GET, POST"),
            ("PATCH", "/v1/jobs", "GET, POST"),
            ("POST", "/metrics", "GET"),
        ],
    )
    def test_wrong_verb(
        self, http: httpx2.Client, method: str, path: str, allow: str
    ) -> None:
        """A wrong verb is a 405 that names the right ones."""
        answer = http.request(method, path)

        assert answer.status_code == 405
        assert answer.headers["allow"] == allow
        assert allow in error(answer)

    @pytest.mark.parametrize(
        "path",
        ["/", "/v3", "/v2/", "/v2/models", "/v2/models/a/b/c", "/v2/models//infer",
         "/v2/models/double/versions/x", "/v2/models/double/versions/9" + "9" * 30,
         "/v2/models/%00", "/v2/models/..%2f..%2fetc", "/v2/models/" + "a" * 500,
         "/v1/nothing", "/v2/models/d%C3%B6uble"],
    )  # fmt: skip
    def test_unknown_path(self, http: httpx2.Client, path: str) -> None:
        """A path or a name that cannot exist is a 404 with a body."""
        answer = http.get(path)

        assert answer.status_code == 404
        assert error(answer)

    def test_unloaded_model(self, http: httpx2.Client, doubler) -> None:
        """Infer on what is not there is a 404 with its name."""
        doubler.resident = False

        answer = http.post(INFER, content=body())

        assert answer.status_code == 404
        assert "double" in error(answer)

    def test_unhandled(self, http: httpx2.Client, doubler) -> None:
        """A fault of ours is a 500 that names the request and hides the rest."""
        doubler.broken = True

        answer = http.post(INFER, content=body(), headers={"X-Request-Id": "abc"})

        assert answer.status_code == 500
        assert "abc" in error(answer)
        assert "secret" not in answer.text
