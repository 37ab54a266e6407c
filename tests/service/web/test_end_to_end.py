"""The whole way: HTTP, intake process, repository, and the real worker inline."""

from __future__ import annotations

import gzip
import io
import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import numpy as np
import onnx
import pytest
import scipy.io
import scipy.sparse
import tritonclient.http as triton
from onnx import TensorProto, helper, numpy_helper
from service.web.doubler import running

from nnz_kernels.backends import Backend
from nnz_service.dataplane import Admission, InlineDataplane
from nnz_service.jobs import SqlStore
from nnz_service.repository import Repository
from nnz_service.web import Limits, create_app
from nnz_service.worker import Host, Toolbox

LENGTH = "Inference-Header-Content-Length"
WEIGHTS = np.array([[1, 0, 2], [0, 0, -3]], np.float32)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    repository, jobs = Repository(home), SqlStore(home / "catalog.sqlite")
    host = Host(repository, jobs, Toolbox(Backend.REFERENCE))
    limits = Limits()
    app = create_app(
        limits=limits,
        dataplane=InlineDataplane(host),
        repository=repository,
        jobs=jobs,
        admission=Admission(limits.max_inflight, limits.max_inflight_bytes),
    )
    with running(app) as address:
        yield address
    repository.close()
    jobs.close()


@pytest.fixture
def http(address: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://{address}", timeout=60) as client:
        yield client


@pytest.fixture
def name() -> str:
    """A model name that no other test uses."""
    return f"model-{uuid.uuid4().hex[:8]}"


def linear(weights: np.ndarray = WEIGHTS, op: str = "Gemm") -> bytes:
    """A model y = x weights^T for x of shape [n, 3]."""
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], name="layer", transB=1)],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    content: bytes = model.SerializeToString()
    return content


def send(
    http: httpx2.Client,
    path: str,
    tensors: Mapping[str, Any],
    parameters: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> httpx2.Response:
    """Post tensors as bytes."""
    arrays = {key: np.asarray(value) for key, value in tensors.items()}
    types = {"f4": "FP32", "f8": "FP64", "i4": "INT32", "i8": "INT64"}
    inputs = [
        {
            "name": key,
            "shape": list(array.shape),
            "datatype": types[array.dtype.str[1:]],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for key, array in arrays.items()
    ]
    text = json.dumps(
        {**fields, "parameters": parameters or {}, "inputs": inputs}
    ).encode()
    tail = b"".join(array.tobytes() for array in arrays.values())
    given = {LENGTH: str(len(text)), **(headers or {})}
    return http.post(path, content=text + tail, headers=given)


def read(answer: httpx2.Response) -> dict[str, np.ndarray]:
    """Read the tensors of an answer."""
    assert answer.status_code == 200, answer.text
    split = int(answer.headers[LENGTH])
    types = {"FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8"}
    found = {}
    for output in json.loads(answer.content[:split])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        raw = answer.content[split : split + size]
        array = np.frombuffer(raw, types[output["datatype"]])
        found[output["name"]] = array.reshape(output["shape"])
        split += size
    assert split == len(answer.content)
    return found


class TestModels:
    def test_put_and_infer(self, http: httpx2.Client, address: str, name: str) -> None:
        """A model that was put is ready when the answer comes."""
        answer = http.put(f"/v1/models/{name}", content=linear())

        assert answer.status_code == 201, answer.text
        info = answer.json()
        assert (info["name"], info["version"], info["state"]) == (name, "1", "READY")
        assert info["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        with triton.InferenceServerClient(address) as client:
            given = triton.InferInput("x", [2, 3], "FP32").set_data_from_numpy(x)
            result = client.infer(name, [given])
            assert client.get_model_config(name)["max_batch_size"] > 0
            (row,) = client.get_inference_statistics(name)["model_stats"]
        np.testing.assert_allclose(result.as_numpy("y"), x @ WEIGHTS.T)
        assert row["inference_count"] == 2

    def test_versions(self, http: httpx2.Client, name: str) -> None:
        """The same content is found again; other content is the next version."""
        path = f"/v1/models/{name}"
        first = http.put(path, content=linear())

        again = http.put(path, content=linear())
        other = http.put(path, content=linear(2 * WEIGHTS))
        clash = http.put(f"{path}?version=1", content=linear(3 * WEIGHTS))

        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json()["version"] == "1"
        assert (other.status_code, other.json()["version"]) == (201, "2")
        assert clash.status_code == 409
        x = {"x": np.ones((1, 3), np.float32)}
        newest = read(infer(http, name, x))["y"]
        oldest = read(infer(http, f"{name}/versions/1", x))["y"]
        np.testing.assert_allclose(newest, 2 * oldest)

    def test_plan(self, http: httpx2.Client, name: str) -> None:
        """A model says layer by layer how it runs."""
        http.put(f"/v1/models/{name}", content=linear())

        info = http.get(f"/v1/models/{name}").json()

        assert info["versions"] == ["1"]
        assert info["plan"][0]["name"] == "layer"
        assert name in [row["name"] for row in http.get("/v1/models").json()["models"]]

    def test_load_and_unload(
        self, http: httpx2.Client, address: str, name: str
    ) -> None:
        """An unloaded model keeps its file, answers 503, and can come back."""
        http.put(f"/v1/models/{name}", content=linear())
        x = {"x": np.ones((1, 3), np.float32)}

        gone = http.post(f"/v1/models/{name}/unload")
        refused = infer(http, name, x)
        listed = http.get(f"/v1/models/{name}").json()
        with triton.InferenceServerClient(address) as client:
            ready_between = client.is_model_ready(name)
            client.load_model(name)
            ready_after = client.is_model_ready(name)
            states = {
                row["name"]: row["state"] for row in client.get_model_repository_index()
            }
            client.unload_model(name)

        assert gone.json() == {"name": name, "version": "1", "state": "UNAVAILABLE"}
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert listed["state"] == "UNAVAILABLE"
        assert (ready_between, ready_after) == (False, True)
        assert states[name] == "READY"

    def test_delete(self, http: httpx2.Client, name: str) -> None:
        """After delete nothing is left, and a second delete is a 404."""
        http.put(f"/v1/models/{name}", content=linear())

        assert http.delete(f"/v1/models/{name}").status_code == 204
        assert http.delete(f"/v1/models/{name}").status_code == 404
        assert http.get(f"/v1/models/{name}").status_code == 404
        x = {"x": np.ones((1, 3), np.float32)}
        assert infer(http, name, x).status_code == 404

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            pytest.param(b"", 400, id="empty"),
            pytest.param(b"this is no model", 422, id="not ONNX"),
            pytest.param(linear()[:-20], 422, id="cut off"),
        ],
    )
    def test_bad_file(
        self, http: httpx2.Client, name: str, content: bytes, code: int
    ) -> None:
        """A file that is no model is refused and leaves nothing behind."""
        answer = http.put(f"/v1/models/{name}", content=content)

        assert answer.status_code == code
        assert answer.json()["error"]
        assert http.get(f"/v1/models/{name}").status_code == 404

    def test_unsupported(self, http: httpx2.Client, name: str) -> None:
        """A model with nodes that cannot run is refused, each one named."""
        model = onnx.load_from_string(linear())
        model.graph.node[0].CopyFrom(
            helper.make_node("Einsum", ["x", "w"], ["y"], "odd", equation="ni,mi->nm")
        )

        answer = http.put(f"/v1/models/{name}", content=model.SerializeToString())

        assert answer.status_code == 422
        assert any("Einsum" in node for node in answer.json()["nodes"])

    @pytest.mark.parametrize("bad", ["a b", "m-0123456789abcdef", ".."])
    def test_bad_name(self, http: httpx2.Client, bad: str) -> None:
        """A name that could not be asked for later is refused before the upload."""
        answer = http.put(f"/v1/models/{bad}", content=linear())

        assert answer.status_code in (404, 422)
        assert answer.json()["error"]


def infer(
    http: httpx2.Client, target: str, tensors: Mapping[str, Any]
) -> httpx2.Response:
    parameters = {"binary_data_output": True}
    return send(http, f"/v2/models/{target}/infer", tensors, parameters)


MATRIX = scipy.sparse.random_array(
    (7, 5), density=0.4, rng=np.random.default_rng(3), format="csr"
)


def as_npz(matrix: Any = MATRIX) -> bytes:
    file = io.BytesIO()
    scipy.sparse.save_npz(file, matrix)
    return file.getvalue()


def as_mtx(matrix: Any = MATRIX) -> bytes:
    file = io.BytesIO()
    scipy.io.mmwrite(file, matrix, precision=17)
    return file.getvalue()


def put_matrix(http: httpx2.Client, matrix: Any) -> str:
    answer = http.post(
        "/v1/matrices",
        content=as_npz(matrix),
        headers={"Content-Type": "application/x-npz"},
    )
    assert answer.status_code in (200, 201), answer.text
    return str(answer.json()["id"])


class TestMatrices:
    def test_formats(self, http: httpx2.Client) -> None:
        """The same matrix has one id, whatever it came as."""
        market = "text/x-matrix-market"
        csr = {
            "indptr": MATRIX.indptr.astype(np.int32),
            "indices": MATRIX.indices.astype(np.int32),
            "data": MATRIX.data,
        }

        def post(content: bytes, kind: str, **more: str) -> httpx2.Response:
            headers = {"Content-Type": kind, **more}
            return http.post("/v1/matrices?name=A", content=content, headers=headers)

        first = post(as_npz(), "application/x-npz")
        others = [
            post(as_mtx(), market),
            post(as_mtx(), "application/x-matrix-market"),
            post(gzip.compress(as_mtx()), market, **{"Content-Encoding": "gzip"}),
            post(gzip.compress(as_mtx()), "application/gzip"),
            send(
                http,
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
        listed = http.get("/v1/matrices").json()["matrices"]
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
        self, http: httpx2.Client, kind: str, content: bytes, code: int
    ) -> None:
        """What is no matrix is refused with a reason."""
        headers = {"Content-Type": kind}

        answer = http.post("/v1/matrices", content=content, headers=headers)

        assert answer.status_code == code, answer.text
        assert answer.json()["error"]

    def test_bad_structure(self, http: httpx2.Client) -> None:
        """A column index out of range never reaches a kernel."""
        arrays = {
            "indptr": np.array([0, 1], np.int32),
            "indices": np.array([9], np.int32),
            "data": np.array([1.0]),
        }

        answer = send(
            http,
            "/v1/matrices",
            arrays,
            {"shape": [1, 3]},
            {"Content-Type": "application/x-nnz-csr"},
        )

        assert answer.status_code == 422
        assert "9" in answer.json()["error"]

    def test_delete(self, http: httpx2.Client) -> None:
        """A deleted matrix is gone for info and for products."""
        key = put_matrix(http, scipy.sparse.eye_array(4, format="csr"))

        assert http.get(f"/v1/matrices/{key}").json()["state"] == "READY"
        assert http.delete(f"/v1/matrices/{key}").status_code == 204
        assert http.get(f"/v1/matrices/{key}").status_code == 404
        answer = send(http, "/v1/ops/spmv", {"x": np.ones(4)}, {"matrix": key})
        assert answer.status_code == 404


class TestOps:
    @pytest.mark.parametrize("transpose", [False, True])
    def test_products(self, http: httpx2.Client, transpose: bool) -> None:
        """Products by spmv and spmm agree with scipy."""
        key = put_matrix(http, MATRIX)
        matrix = MATRIX.T if transpose else MATRIX
        x = np.random.default_rng(1).standard_normal((matrix.shape[1], 3))
        parameters = {"matrix": key, "transpose": transpose}

        one = read(send(http, "/v1/ops/spmv", {"x": x[:, 0].copy()}, parameters))
        many = read(send(http, "/v1/ops/spmm", {"x": x}, parameters))

        np.testing.assert_allclose(one["y"], matrix @ x[:, 0])
        np.testing.assert_allclose(many["y"], matrix @ x)

    def test_matrix_as_model(self, http: httpx2.Client) -> None:
        """Infer on a matrix takes rows."""
        key = put_matrix(http, MATRIX)
        x = np.random.default_rng(1).standard_normal((4, 5))

        y = read(infer(http, key, {"x": x}))["y"]

        np.testing.assert_allclose(y, (MATRIX @ x.T).T)

    def test_axpy(self, http: httpx2.Client) -> None:
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

        answer = http.post(
            "/v1/ops/axpy", json={"parameters": {"r": -2.0}, "inputs": inputs}
        )

        outputs = {row["name"]: row["data"] for row in answer.json()["outputs"]}
        found = zip(outputs["w.indices"], outputs["w.values"], strict=True)
        assert [(i, int(value)) for i, value in found] == want

    def test_dot(self, http: httpx2.Client) -> None:
        """Only indices that both have count."""
        tensors = {
            "u.indices": np.array([3, 0]),
            "u.values": np.array([2.0, 5.0]),
            "v.indices": np.array([7, 3]),
            "v.values": np.array([1.0, 4.0]),
        }

        assert read(send(http, "/v1/ops/dot", tensors))["dot"].tolist() == [8.0]

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
        self, http: httpx2.Client, op: str, parameters: dict[str, Any], code: int
    ) -> None:
        """What an op cannot take is refused with the right code."""
        answer = send(http, f"/v1/ops/{op}", {"x": np.ones(3)}, parameters)

        assert answer.status_code == code, answer.text
        assert answer.json()["error"]

    def test_wrong_length(self, http: httpx2.Client) -> None:
        """A vector that does not fit is a 422 with both numbers."""
        key = put_matrix(http, MATRIX)

        answer = send(http, "/v1/ops/spmv", {"x": np.ones(4)}, {"matrix": key})

        assert answer.status_code == 422
        assert "4" in answer.json()["error"]
        assert "5" in answer.json()["error"]


def poisson(n: int) -> Any:
    return scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))


class TestJobs:
    def test_cg(self, http: httpx2.Client) -> None:
        """Submit, wait, fetch: the residual is what was asked for."""
        matrix = poisson(200).tocsr()
        key = put_matrix(http, matrix)
        b = np.random.default_rng(5).standard_normal(200)

        submitted = send(
            http, "/v1/jobs", {"b": b}, {"matrix": key, "rtol": 1e-10}, kind="cg"
        )
        job = http.get(f"/v1/jobs/{submitted.json()['id']}?wait=30").json()
        result = http.get(f"/v1/jobs/{job['id']}/result")

        assert submitted.status_code == 202
        assert job["status"] == "succeeded"
        assert job["result"]["status"] == "converged"
        x = read(result)["x"]
        assert np.linalg.norm(b - matrix @ x) <= 1e-9 * np.linalg.norm(b)
        shown = http.get(
            f"/v1/jobs/{job['id']}/result", headers={"Accept": "application/json"}
        )
        assert shown.json()["outputs"][0]["data"] == x.tolist()
        assert http.delete(f"/v1/jobs/{job['id']}").status_code == 204
        assert http.get(f"/v1/jobs/{job['id']}").status_code == 404

    def test_idempotency(self, http: httpx2.Client) -> None:
        """The same key and body is the same job; another body is refused."""
        key = put_matrix(http, poisson(20).tocsr())
        headers = {"Idempotency-Key": uuid.uuid4().hex}

        def submit(b: np.ndarray) -> httpx2.Response:
            return send(http, "/v1/jobs", {"b": b}, {"matrix": key}, headers, kind="cg")

        first, again = submit(np.ones(20)), submit(np.ones(20))
        other = submit(np.zeros(20))

        assert first.json()["id"] == again.json()["id"]
        assert other.status_code == 422

    def test_cancel(self, http: httpx2.Client) -> None:
        """A job that would run long ends soon after it is cancelled."""
        key = put_matrix(http, poisson(20_000).tocsr())
        parameters = {"matrix": key, "rtol": 0.0, "maxiter": 2_000_000_000}
        job = send(
            http, "/v1/jobs", {"b": np.ones(20_000)}, parameters, kind="cg"
        ).json()

        early = http.get(f"/v1/jobs/{job['id']}/result")
        cancelled = http.post(f"/v1/jobs/{job['id']}/cancel")
        ended = http.get(f"/v1/jobs/{job['id']}?wait=30").json()

        assert early.status_code == 409
        assert cancelled.status_code == 200
        assert ended["status"] in ("cancelled", "succeeded")
        assert job["id"] in [
            row["id"] for row in http.get("/v1/jobs?limit=1000").json()["jobs"]
        ]

    @pytest.mark.parametrize(
        ("kind", "parameters", "tensors", "code"),
        [
            pytest.param(None, {}, {"b": np.ones(7)}, 400, id="no kind"),
            pytest.param("lu", {}, {"b": np.ones(7)}, 422, id="unknown kind"),
            pytest.param("cg", {}, {"b": np.ones(7)}, 400, id="no matrix"),
            pytest.param("cg", {"matrix": 1}, {"b": np.ones(7)}, 400, id="no text"),
            pytest.param(
                "cg", {"matrix": "m-00"}, {"b": np.ones(7)}, 404, id="no such matrix"
            ),
            pytest.param("cg", {"matrix": "A"}, {"c": np.ones(20)}, 422, id="no b"),
            pytest.param("cg", {"matrix": "A"}, {"b": np.ones(7)}, 422, id="length"),
            pytest.param(
                "cg", {"matrix": "A"}, {"b": np.full(20, np.nan)}, 422, id="NaN"
            ),
            pytest.param(
                "cg", {"matrix": "A"}, {"b": np.ones(20, np.int32)}, 422, id="integers"
            ),
            pytest.param(
                "cg", {"matrix": "A", "rtol": "x"}, {"b": np.ones(20)}, 400, id="rtol"
            ),
            pytest.param(
                "cg",
                {"matrix": "A", "rtol": -1},
                {"b": np.ones(20)},
                422,
                id="rtol < 0",
            ),
            pytest.param(
                "cg", {"matrix": "A", "maxiter": 0}, {"b": np.ones(20)}, 422, id="steps"
            ),
            pytest.param(
                "cg",
                {"matrix": "A", "preconditioner": "ilu"},
                {"b": np.ones(20)},
                422,
                id="preconditioner",
            ),
            pytest.param(
                "cg", {"matrix": "A", "tol": 1}, {"b": np.ones(20)}, 400, id="misspelt"
            ),
        ],
    )
    def test_refused(
        self,
        http: httpx2.Client,
        kind: str | None,
        parameters: dict[str, Any],
        tensors: dict[str, Any],
        code: int,
    ) -> None:
        """A job that cannot run is refused before it is written down."""
        if parameters.get("matrix") == "A":
            parameters = {**parameters, "matrix": put_matrix(http, poisson(20).tocsr())}
        fields = {} if kind is None else {"kind": kind}

        answer = send(http, "/v1/jobs", tensors, parameters, **fields)

        assert answer.status_code == code, answer.text
        assert answer.json()["error"]

    def test_not_square(self, http: httpx2.Client) -> None:
        """CG on a matrix that is not square is a 422 with its shape."""
        key = put_matrix(http, MATRIX)

        answer = send(http, "/v1/jobs", {"b": np.ones(7)}, {"matrix": key}, kind="cg")

        assert answer.status_code == 422
        assert "7 x 5" in answer.json()["error"]

    @pytest.mark.parametrize("query", ["wait=-1", "wait=61", "wait=x", "wait=nan"])
    def test_bad_wait(self, http: httpx2.Client, query: str) -> None:
        """`wait` is between 0 and 60 seconds."""
        answer = http.get(f"/v1/jobs/any?{query}")

        assert answer.status_code == 400
        assert "wait" in answer.json()["error"]


class TestServer:
    def test_devices(self, http: httpx2.Client) -> None:
        """Every back-end is listed, with a reason when it is not available."""
        found = {
            row["backend"]: row for row in http.get("/v1/devices").json()["devices"]
        }

        assert found["reference"]["available"]
        assert found["cuda"]["available"] or found["cuda"]["reason"]

    def test_stats(self, http: httpx2.Client) -> None:
        """Counters of servables, of the scheduler, and the state of the worker."""
        found = http.get("/v1/stats").json()

        assert set(found) == {"model_stats", "scheduler", "worker"}
        assert found["worker"]["ready"] is True
