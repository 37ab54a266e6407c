"""Matrices in every format, and operations on them."""

from __future__ import annotations

import gzip
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.web.wire import MATRIX, as_mtx, as_npz, infer, put_matrix, read, send

from nnz_service.repository import Repository


class TestMatrices:
    def test_formats(self, real: httpx2.Client) -> None:
        """The same matrix has one id, whatever it came as."""
        market = "text/x-matrix-market"
        csr = {
            "indptr": MATRIX.indptr.astype(np.int32),
            "indices": MATRIX.indices.astype(np.int32),
            "data": MATRIX.data,
        }

        def post(content: bytes, kind: str, **more: str) -> httpx2.Response:
            headers = {"Content-Type": kind, **more}
            return real.post("/v1/matrices?name=A", content=content, headers=headers)

        first = post(as_npz(), "application/x-npz")
        others = [
            post(as_mtx(), market),
            post(as_mtx(), "application/x-matrix-market"),
            post(gzip.compress(as_mtx()), market, **{"Content-Encoding": "gzip"}),
            post(gzip.compress(as_mtx()), "application/gzip"),
            send(
                real,
                "/v1/matrices",
                csr,
                {"shape": [7, 5]},
                {"Content-Type": "application/x-nnz-csr"},
            ),
        ]

        assert first.status_code == 201, first.text
        assert first.json()["shape"] == [7, 5]
        assert first.json()["nnz"] == MATRIX.nnz
        assert first.json()["dtype"] == "FP64"
        for other in others:
            assert other.status_code == 200, other.text
            assert other.json()["id"] == first.json()["id"]
        coo = MATRIX.tocoo()
        shuffled = np.random.default_rng(0).permutation(MATRIX.nnz)
        triplets = {
            "row": coo.coords[0][shuffled].astype(np.int64),
            "col": coo.coords[1][shuffled].astype(np.int64),
            "data": coo.data[shuffled],
        }
        kind = {"Content-Type": "application/x-nnz-csr"}
        answer = send(real, "/v1/matrices", triplets, {"shape": [7, 5]}, kind)
        assert (answer.status_code, answer.json()["id"]) == (200, first.json()["id"])
        listed = real.get("/v1/matrices").json()["matrices"]
        assert first.json()["id"] in [row["id"] for row in listed]

    @pytest.mark.parametrize(
        ("kind", "content", "code"),
        [
            pytest.param("application/json", as_npz(), 415, id="type"),
            pytest.param("", as_npz(), 415, id="no type"),
            pytest.param("application/x-npz", b"", 400, id="empty"),
            pytest.param("application/x-npz", b"PK nonsense", 422, id="no npz"),
            pytest.param("text/x-matrix-market", b"%%Matrix", 422, id="no mtx"),
            pytest.param("application/x-nnz-csr", b"{}", 400, id="no header length"),
        ],
    )
    def test_bad_file(
        self, real: httpx2.Client, kind: str, content: bytes, code: int
    ) -> None:
        """What is no matrix is refused with a reason."""
        headers = {"Content-Type": kind}

        answer = real.post("/v1/matrices", content=content, headers=headers)

        assert answer.status_code == code, answer.text
        assert answer.json()["error"]

    def test_bad_structure(self, real: httpx2.Client) -> None:
        """A column index out of range never reaches a kernel."""
        arrays = {
            "indptr": np.array([0, 1], np.int32),
            "indices": np.array([9], np.int32),
            "data": np.array([1.0]),
        }

        answer = send(
            real,
            "/v1/matrices",
            arrays,
            {"shape": [1, 3]},
            {"Content-Type": "application/x-nnz-csr"},
        )

        assert answer.status_code == 422
        assert "9" in answer.json()["error"]

    def test_picture(self, real: httpx2.Client) -> None:
        """A PNG of the size that was asked for, drawn once; other sizes are a 400."""
        key = put_matrix(real, MATRIX)

        answer = real.get(f"/v1/matrices/{key}/spy?size=70")

        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"
        assert answer.content[16:24] == bytes([0, 0, 0, 50, 0, 0, 0, 70])
        assert real.get(f"/v1/matrices/{key}/spy?size=70").content == answer.content
        for size in ("15", "2049", "large"):
            assert real.get(f"/v1/matrices/{key}/spy?size={size}").status_code == 400

    def test_facts_of_an_older_catalog(
        self, real: httpx2.Client, real_home: Path
    ) -> None:
        """They are found at the first look, and kept."""
        key = put_matrix(real, MATRIX)
        before = real.get(f"/v1/matrices/{key}").json()
        repository = Repository(real_home)
        repository.note_facts(key, None)
        assert repository.matrix(key).facts is None

        after = real.get(f"/v1/matrices/{key}").json()

        assert after == before
        assert after["symmetry"] == "none"
        assert repository.matrix(key).facts is not None
        repository.close()

    def test_values(self, real: httpx2.Client, real_home: Path) -> None:
        """The places are stored once, and for as long as one of the two is there."""
        rng = np.random.default_rng(7)
        matrix = scipy.sparse.random_array((300, 200), density=0.1, rng=rng).tocsr()
        first = put_matrix(real, matrix)
        other = matrix.copy()
        other.data = rng.random(matrix.nnz)
        data = {"name": "data", "shape": [matrix.nnz], "datatype": "FP64"}
        body = {"inputs": [{**data, "data": other.data.tolist()}]}

        answer = real.put(f"/v1/matrices/{first}/values", json=body)

        assert answer.status_code == 201, answer.text
        second = answer.json()["id"]
        assert (
            answer.json()["bytes"]
            < 0.7 * real.get(f"/v1/matrices/{first}").json()["bytes"]
        )
        assert real.delete(f"/v1/matrices/{first}").status_code == 204
        assert real.post(f"/v2/repository/models/{second}/unload").status_code == 200
        x = rng.random(200)
        y = read(send(real, "/v1/ops/spmv", {"x": x}, {"matrix": second}))["y"]
        np.testing.assert_allclose(y, other @ x)
        files = {path.name for path in (real_home / "blobs").iterdir()}
        assert real.delete(f"/v1/matrices/{second}").status_code == 204
        assert len(files - {p.name for p in (real_home / "blobs").iterdir()}) == 2

    @pytest.mark.parametrize(
        ("query", "inputs", "code"),
        [
            ("", [], 400),
            ("", [("data", [2], "FP64", [1.0, 2.0])], 422),
            ("", [("values", [5], "FP64", [1.0] * 5)], 422),
            ("", [("data", [5], "C128", [1.0] * 5)], 400),
            ("?pattern=0123", [("data", [5], "FP64", [1.0] * 5)], 409),
            ("?name=", [("data", [5], "FP64", [1.0] * 5)], 422),
        ],
    )
    def test_bad_values(
        self, real: httpx2.Client, query: str, inputs: list[Any], code: int
    ) -> None:
        """What does not fit the places makes no matrix."""
        key = put_matrix(real, scipy.sparse.eye_array(5, format="csr") * 2.0)
        names = ("name", "shape", "datatype", "data")
        body = {"inputs": [dict(zip(names, row, strict=True)) for row in inputs]}

        answer = real.put(f"/v1/matrices/{key}/values{query}", json=body)

        assert answer.status_code == code, answer.text
        assert answer.json()["error"]

    def test_residence(self, real: httpx2.Client, real_home: Path) -> None:
        """In memory or not, and pinned there, as /v1/stats tells."""
        key = put_matrix(real, MATRIX)

        def held() -> dict[str, Any]:
            rows = real.get("/v1/stats").json()["resident"]["matrices"]
            return {row["name"]: row for row in rows}

        def ask(verb: str) -> Any:
            answer = real.post(f"/v1/matrices/{key}/{verb}")
            assert answer.status_code == 200, answer.text
            return answer.json()

        assert held()[key]["bytes"] >= MATRIX.data.nbytes
        assert ask("unload")["state"] == "UNAVAILABLE"
        assert key not in held()
        assert ask("load")["state"] == "READY"
        assert ask("pin")["pinned"] is True
        assert held()[key]["pinned"] is True
        repository = Repository(real_home)
        assert [one.id for one in repository.pinned()] == [key]
        repository.close()
        assert ask("unpin")["pinned"] is False
        assert real.get(f"/v1/matrices/{key}").json()["pinned"] is False

    def test_delete(self, real: httpx2.Client) -> None:
        """A deleted matrix is gone for info and for products."""
        key = put_matrix(real, scipy.sparse.eye_array(4, format="csr"))

        assert real.get(f"/v1/matrices/{key}").json()["state"] == "READY"
        assert real.delete(f"/v1/matrices/{key}").status_code == 204
        assert real.get(f"/v1/matrices/{key}").status_code == 404
        answer = send(real, "/v1/ops/spmv", {"x": np.ones(4)}, {"matrix": key})
        assert answer.status_code == 404


class TestOps:
    @pytest.mark.parametrize("transpose", [False, True])
    def test_products(self, real: httpx2.Client, transpose: bool) -> None:
        """Products by spmv and spmm agree with scipy."""
        key = put_matrix(real, MATRIX)
        matrix = MATRIX.T if transpose else MATRIX
        x = np.random.default_rng(1).standard_normal((matrix.shape[1], 3))
        parameters = {"matrix": key, "transpose": transpose}

        one = read(send(real, "/v1/ops/spmv", {"x": x[:, 0].copy()}, parameters))
        many = read(send(real, "/v1/ops/spmm", {"x": x}, parameters))

        np.testing.assert_allclose(one["y"], matrix @ x[:, 0])
        np.testing.assert_allclose(many["y"], matrix @ x)

    def test_matrix_as_model(self, real: httpx2.Client) -> None:
        """Infer on a matrix takes rows."""
        key = put_matrix(real, MATRIX)
        x = np.random.default_rng(1).standard_normal((4, 5))

        y = read(infer(real, key, {"x": x}))["y"]

        np.testing.assert_allclose(y, (MATRIX @ x.T).T)

    def test_many_at_once(self, real: httpx2.Client) -> None:
        """Requests that share one product each get their own answer."""
        key = put_matrix(real, MATRIX)
        xs = np.random.default_rng(2).standard_normal((40, 5))

        def multiply(x: np.ndarray) -> np.ndarray:
            return read(send(real, "/v1/ops/spmv", {"x": x}, {"matrix": key}))["y"]

        with ThreadPoolExecutor(20) as pool:
            ys = list(pool.map(multiply, xs))

        np.testing.assert_allclose(ys, xs @ MATRIX.toarray().T)
        (row,) = real.get(f"/v2/models/{key}/stats").json()["model_stats"]
        assert row["inference_stats"]["success"]["count"] >= 40
        assert row["execution_count"] <= row["inference_count"]

    def test_axpy(self, real: httpx2.Client) -> None:
        """The founding example, in JSON: u - 2 v in u's order, then v's."""
        u = [(0, 1), (1, 6), (3, -3), (7, 7), (10, -10), (11, -3), (12, -7), (14, -8)]
        v = [(0, -10), (1, 0), (5, 3), (6, -3), (7, 2), (11, 7)]
        want = [
            (0, 21), (1, 6), (3, -3), (7, 3), (10, -10), (11, -17), (12, -7), (14, -8),
            (5, -6), (6, 6),
        ]  # fmt: skip
        inputs = [
            {"name": f"{n}.{part}", "shape": [len(w)], "datatype": kind,
             "data": [pair[i] for pair in w]}
            for n, w in (("u", u), ("v", v))
            for i, (part, kind) in enumerate((("indices", "INT64"), ("values", "FP64")))
        ]  # fmt: skip

        answer = real.post(
            "/v1/ops/axpy", json={"parameters": {"r": -2.0}, "inputs": inputs}
        )

        outputs = {row["name"]: row["data"] for row in answer.json()["outputs"]}
        found = zip(outputs["w.indices"], outputs["w.values"], strict=True)
        assert [(i, int(value)) for i, value in found] == want

    def test_dot(self, real: httpx2.Client) -> None:
        """Only indices that both have count."""
        tensors = {
            "u.indices": np.array([3, 0]),
            "u.values": np.array([2.0, 5.0]),
            "v.indices": np.array([7, 3]),
            "v.values": np.array([1.0, 4.0]),
        }

        assert read(send(real, "/v1/ops/dot", tensors))["dot"].tolist() == [8.0]

    @pytest.mark.parametrize(
        ("op", "parameters", "code"),
        [
            ("fft", {}, 404),
            ("spmv", {}, 400),
            ("spmv", {"matrix": 7}, 400),
            ("spmv", {"matrix": "m-0000000000000000"}, 404),
            ("spmv", {"matrix": "no"}, 404),
            ("spmv", {"matrix": None, "transpose": 1}, 400),
            ("spmv", {"matirx": "m"}, 400),
            ("axpy", {"r": 1.0}, 422),
            ("dot", {}, 422),
        ],
    )
    def test_refused(
        self, real: httpx2.Client, op: str, parameters: dict[str, Any], code: int
    ) -> None:
        """What an op cannot take is refused with the right code."""
        answer = send(real, f"/v1/ops/{op}", {"x": np.ones(3)}, parameters)

        assert answer.status_code == code, answer.text
        assert answer.json()["error"]

    def test_wrong_length(self, real: httpx2.Client) -> None:
        """A vector that does not fit is a 422 with both numbers."""
        key = put_matrix(real, MATRIX)

        answer = send(real, "/v1/ops/spmv", {"x": np.ones(4)}, {"matrix": key})

        assert answer.status_code == 422
        assert "4" in answer.json()["error"]
        assert "5" in answer.json()["error"]


class TestServer:
    def test_devices(self, real: httpx2.Client) -> None:
        """Every back-end is listed, with a reason when it is not available."""
        found = {
            row["backend"]: row for row in real.get("/v1/devices").json()["devices"]
        }

        assert found["reference"]["available"]
        assert found["cuda"]["available"] or found["cuda"]["reason"]

    def test_stats(self, real: httpx2.Client) -> None:
        """Counters of servables, of the scheduler, and the state of the worker."""
        found = real.get("/v1/stats").json()

        assert set(found) == {
            "model_stats", "scheduler", "worker", "processes", "resident",
        }  # fmt: skip
        assert found["worker"]["ready"] is True

    def test_metrics(self, real: httpx2.Client) -> None:
        """What a resident matrix holds, and how often it was used, is in /metrics."""
        key = put_matrix(real, MATRIX)
        send(real, "/v1/ops/spmv", {"x": np.ones(5)}, {"matrix": key})

        text = real.get("/metrics").text

        values = dict(re.findall(r"^(\S+\{.*\}) (\S+)$", text, re.MULTILINE))
        labels = f'servable="{key}",version="1"'
        least = MATRIX.data.nbytes
        assert float(values[f"nnz_servable_resident_bytes{{{labels}}}"]) >= least
        assert float(values[f"nnz_servable_runs_total{{{labels}}}"]) >= 1
