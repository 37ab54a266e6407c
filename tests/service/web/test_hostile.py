"""Files, names and bodies that were made to break something."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable

import httpx2
import numpy as np
import onnx
import pytest
from fastapi import FastAPI
from onnx import TensorProto, helper
from service.web.doubler import running
from service.web.wire import as_mtx, as_npz, linear

NPZ = {"Content-Type": "application/x-npz"}
MARKET = {"Content-Type": "application/gzip"}


def error(answer: httpx2.Response) -> str:
    assert answer.headers["content-type"] == "application/json"
    return str(answer.json()["error"])


class TestNesting:
    """JSON that goes down ten thousand levels."""

    @pytest.mark.parametrize("path", [
        "/v2/models/n/infer", "/v1/ops/dot", "/v1/jobs", "/v2/logging",
        "/v2/repository/index", "/v2/repository/models/n/load", "/v2/trace/setting",
    ])  # fmt: skip
    @pytest.mark.parametrize(
        ("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b"[", b"")]
    )
    def test_is_refused(
        self, real: httpx2.Client, path: str, opening: bytes, closing: bytes
    ) -> None:
        body = b'{"inputs": %b1%b}' % (opening * 10_000, closing * 10_000)

        answer = real.post(path, content=body)

        assert answer.status_code == 400
        assert "not valid JSON" in error(answer)

    def test_in_data(self, real: httpx2.Client) -> None:
        """As deep as the parser lets through."""
        start = '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":'
        deep = "[" * 1000 + "1" + "]" * 1000

        answer = real.post("/v1/ops/dot", content=start + deep + "}]}")

        assert answer.status_code == 400
        assert error(answer)


class TestBombs:
    def test_gzip_in_gzip(self, real: httpx2.Client) -> None:
        """One layer is undone, and the next one is no JSON."""
        body = gzip.compress(gzip.compress(b'{"inputs": []}'))

        for encoding, code in (("gzip", 400), ("gzip, gzip", 415)):
            answer = real.post(
                "/v1/ops/dot", content=body, headers={"Content-Encoding": encoding}
            )
            assert answer.status_code == code
            assert error(answer)

    def test_matrix_market_in_two_layers(self, real: httpx2.Client) -> None:
        """A .mtx.gz may travel compressed; three layers are no matrix."""
        encoded = {**MARKET, "Content-Encoding": "gzip"}
        twice = gzip.compress(gzip.compress(as_mtx()))

        assert real.post("/v1/matrices", content=twice, headers=encoded).is_success
        thrice = gzip.compress(twice)
        answer = real.post("/v1/matrices", content=thrice, headers=encoded)
        assert answer.status_code == 422
        assert error(answer)

    @pytest.mark.parametrize(
        ("make", "code", "reason"),
        [
            (lambda: _many(as_npz()), 422, "1006 members"),
            (lambda: _huge(as_npz()), 413, "decompressed"),
            (lambda: _overlapping(as_npz()), 422, "npz file"),
            (lambda: _nested_name(as_npz()), 422, "no member"),
            (lambda: _long_shape(), 422, "shape is an array"),
        ],
        ids=["many", "huge", "overlapping", "path", "shape"],
    )
    def test_archives(
        self, real: httpx2.Client, make: Callable[[], bytes], code: int, reason: str
    ) -> None:
        answer = real.post("/v1/matrices", content=make(), headers=NPZ)

        assert answer.status_code == code, answer.text[:300]
        assert reason in error(answer)
        assert len(answer.content) < 1000


def _rewritten(raw: bytes, change: Callable[[zipfile.ZipFile], None]) -> bytes:
    file = io.BytesIO(raw)
    with zipfile.ZipFile(file, "a") as archive:
        change(archive)
    return file.getvalue()


def _many(raw: bytes) -> bytes:
    def change(archive: zipfile.ZipFile) -> None:
        for number in range(1000):
            archive.writestr(f"{number}.npy", b"")

    return _rewritten(raw, change)


def _central(raw: bytes, name: bytes) -> int:
    """Where the entry of a member begins in the directory of an archive."""
    at = raw.index(b"PK\x01\x02")
    while raw[at + 46 : at + 46 + len(name)] != name:
        at = raw.index(b"PK\x01\x02", at + 1)
    return at


def _huge(raw: bytes) -> bytes:
    """Nine members that declare almost 4 GiB each."""

    def change(archive: zipfile.ZipFile) -> None:
        for number in range(9):
            archive.writestr(f"more{number}.npy", b"x")

    out = bytearray(_rewritten(raw, change))
    for number in range(9):
        struct.pack_into("<I", out, _central(out, b"more%d" % number) + 24, 2**32 - 2)
    return bytes(out)


def _overlapping(raw: bytes) -> bytes:
    """The data of one member begin inside of another's."""
    out = bytearray(raw)
    offsets = [
        struct.unpack_from("<I", out, _central(out, name) + 42)[0]
        for name in (b"data.npy", b"indices.npy")
    ]
    struct.pack_into("<I", out, _central(out, b"indices.npy") + 42, min(offsets))
    struct.pack_into("<I", out, _central(out, b"data.npy") + 42, min(offsets))
    return bytes(out)


def _nested_name(raw: bytes) -> bytes:
    return raw.replace(b"indices.npy", b"../dices.np")


def _long_shape() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, format=np.array(b"csr"), shape=np.zeros(10**6, np.int64))
    return file.getvalue()


def _external(location: str, *, declared: bool, in_node: bool) -> bytes:
    model = onnx.ModelProto.FromString(linear())
    tensor = onnx.TensorProto(name="w", dims=[2, 3], data_type=TensorProto.FLOAT)
    if declared:
        tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "24")):
        tensor.external_data.add(key=key, value=value)
    if in_node:
        del model.graph.initializer[:]
        node = helper.make_node("Constant", [], ["w"], name="c", value=tensor)
        model.graph.node.insert(0, node)
    else:
        model.graph.initializer[0].CopyFrom(tensor)
    return bytes(model.SerializeToString())


class TestExternalData:
    @pytest.mark.parametrize(
        ("location", "declared", "in_node"),
        [
            ("/etc/passwd", True, False),
            ("../../etc/passwd", True, True),
            ("weights.bin", True, False),
            ("weights.bin", False, True),
            ("", False, False),
        ],
    )
    def test_no_other_file_is_opened(
        self, real: httpx2.Client, location: str, declared: bool, in_node: bool
    ) -> None:
        """A model is one file; wherever else its weights are said to lie."""
        content = _external(location, declared=declared, in_node=in_node)

        answer = real.put("/v1/models/outside", content=content)

        assert answer.status_code == 422, answer.text
        assert "its data lies in another file" in error(answer)
        assert real.get("/v1/models/outside").status_code == 404


class TestNames:
    @pytest.mark.parametrize(
        "name",
        ["..", "%2e%2e", "..%2f..%2fetc", "a%2fb", "a%5cb", "%00", "a%00b", "a%0ab",
         "%ff%fe", "a%20b", "é", "m-0123456789abcdef", "a" * 129, "%c0%ae%c0%ae"],
    )  # fmt: skip
    @pytest.mark.parametrize("query", ["", "?version=../../x", "?version=1%00"])
    def test_of_models(self, real: httpx2.Client, name: str, query: str) -> None:
        """Nothing is stored under a name that could be a path."""
        answer = real.put(f"/v1/models/{name}{query}", content=linear())

        assert answer.status_code in (404, 405, 422)
        assert error(answer)

    @pytest.mark.parametrize("version", ["../1", "1%2f..", "-1", "1e3", "٣", "1%00"])
    def test_of_versions(self, real: httpx2.Client, version: str) -> None:
        for answer in (
            real.put(f"/v1/models/net?version={version}", content=linear()),
            real.get(f"/v2/models/net/versions/{version}"),
            real.delete(f"/v1/models/net?version={version}"),
        ):
            assert answer.status_code in (404, 422)
            assert error(answer)

    @pytest.mark.parametrize("name", ["a%00b", "a%0d%0aX-Evil: 1", "", "a" * 129])
    def test_of_matrices(self, real: httpx2.Client, name: str) -> None:
        answer = real.post(f"/v1/matrices?name={name}", content=as_npz(), headers=NPZ)

        assert answer.status_code == 422
        assert error(answer)

    @pytest.mark.parametrize("key", ["", "a\x01", "a" * 256])
    def test_of_jobs(self, real: httpx2.Client, key: str) -> None:
        body = json.dumps({"kind": "cg", "inputs": []})
        headers = {"Idempotency-Key": key.encode()}
        answer = real.post("/v1/jobs", content=body, headers=headers)

        assert answer.status_code == 400
        assert error(answer)


def test_two_keys(make_app: Callable[..., FastAPI]) -> None:
    """Of two Authorization headers neither is believed."""
    with running(make_app(key="sesame")) as address:
        both = [("Authorization", "Bearer sesame"), ("Authorization", "Bearer x")]
        for headers in (both, both[::-1], both[:1] * 2):
            assert (
                httpx2.get(f"http://{address}/v2", headers=headers).status_code == 401
            )
