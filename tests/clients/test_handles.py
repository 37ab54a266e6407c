"""Models, matrices and jobs in the caller's hand; both clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse.linalg as spla

import nnz
from nnz import _async_client, _client

MODEL = {
    "name": "m",
    "version": "2",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
}
TWO_INPUTS = {
    **MODEL,
    "inputs": [*MODEL["inputs"], {"name": "z", "datatype": "INT64", "shape": [1]}],
}
MATRIX = {"id": "m-1", "name": None, "shape": [2, 3], "nnz": 4, "dtype": "FP32"}
DENSE = np.float32([[1, 0, 2], [0, 3, 0]])
RESULT = {"status": "converged", "iterations": 7, "residual": 1e-9}


def job(status: str, **more: Any) -> httpx2.Response:
    return httpx2.Response(
        200, json={"id": "j", "kind": "cg", "status": status, **more}
    )


class Multiplier:
    """A server that holds DENSE and multiplies."""

    def __init__(self, fake: Any, answer_tensors: Callable[..., Any]) -> None:
        self.seen = fake(httpx2.Response(200, json=MATRIX))
        self._answer = answer_tensors
        self.calls: list[tuple[str, bool]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        reply: httpx2.Response = self.seen(request)
        if request.url.path.startswith("/v1/matrices"):
            return reply
        (entry,) = self.seen.json["inputs"]
        assert entry["datatype"] == "FP32"
        x = np.frombuffer(self.seen.tail, np.float32).reshape(entry["shape"])
        transpose = self.seen.json["parameters"]["transpose"]
        self.calls.append((request.url.path, transpose))
        result = self._answer({"y": (DENSE.T if transpose else DENSE) @ x})
        assert isinstance(result, httpx2.Response)
        return result


@pytest.fixture
def multiplier(fake: Any, answer_tensors: Callable[..., Any]) -> Multiplier:
    return Multiplier(fake, answer_tensors)


@pytest.fixture
def matrix(connect: Any, multiplier: Multiplier) -> Any:
    return connect(multiplier).matrices.get("m-1")


class TestModel:
    def test_lists_take_the_declared_type(
        self, connect: Any, fake: Any, answer_tensors: Callable[..., Any]
    ) -> None:
        server = fake(
            httpx2.Response(200, json=MODEL), answer_tensors({"y": np.float32([9])})
        )

        out = connect(server).models.get("m").infer([[1, 2]])

        assert server.json["inputs"][0]["datatype"] == "FP32"
        assert server.json["inputs"][0]["shape"] == [1, 2]
        assert out["y"].tolist() == [9]

    def test_arrays_are_sent_as_they_are(
        self, connect: Any, fake: Any, answer_tensors: Callable[..., Any]
    ) -> None:
        server = fake(httpx2.Response(200, json=MODEL), answer_tensors({}))

        connect(server).models.get("m").infer({"x": np.zeros((1, 2))})

        assert server.json["inputs"][0]["datatype"] == "FP64"

    def test_a_bare_array_needs_a_single_input(self, connect: Any, fake: Any) -> None:
        model = connect(fake(httpx2.Response(200, json=TWO_INPUTS))).models.get("m")

        with pytest.raises(ValueError, match=r"m has 2 inputs \(x, z\)"):
            model.infer([[1, 2]])

    def test_repr(self, connect: Any, fake: Any) -> None:
        model = connect(fake(httpx2.Response(200, json=MODEL))).models.get("m")

        assert repr(model) == "Model('m', version='2')"


class TestMatrix:
    def test_describes_itself(self, matrix: Any) -> None:
        assert (matrix.shape, matrix.T.shape) == ((2, 3), (3, 2))
        assert (matrix.nnz, matrix.dtype, matrix.id) == (4, np.float32, "m-1")
        assert repr(matrix.T) == "Matrix('m-1', shape=(2, 3), nnz=4).T"

    def test_vector(self, matrix: Any, multiplier: Multiplier) -> None:
        assert (matrix @ np.array([1, 2, 3])).tolist() == [7, 6]
        assert multiplier.calls == [("/v1/ops/spmv", False)]

    def test_columns(self, matrix: Any, multiplier: Multiplier) -> None:
        x = np.arange(12.0).reshape(3, 4)

        np.testing.assert_array_equal(matrix @ x, DENSE @ x)
        assert multiplier.calls == [("/v1/ops/spmm", False)]

    def test_transpose(self, matrix: Any, multiplier: Multiplier) -> None:
        assert (matrix.T @ [1, 2]).tolist() == [1, 6, 2]
        assert (matrix.T.T @ [1, 2, 3]).tolist() == [7, 6]
        assert multiplier.calls == [("/v1/ops/spmv", True), ("/v1/ops/spmv", False)]

    def test_from_the_left(self, matrix: Any) -> None:
        rows = np.float32([[1, 2], [3, 4], [5, 6]])

        np.testing.assert_array_equal(rows @ matrix, rows @ DENSE)
        np.testing.assert_array_equal(rows[0] @ matrix, rows[0] @ DENSE)

    def test_named_products(self, matrix: Any) -> None:
        x, y = np.float32([[1], [2], [3]]), np.float32([[1], [2]])

        assert matrix.matvec(x[:, 0]).tolist() == [7, 6]
        assert matrix.matvec(x).tolist() == [[7], [6]]
        assert matrix.rmatvec(y[:, 0]).tolist() == [1, 6, 2]
        assert matrix.matmat(x).tolist() == [[7], [6]]
        assert matrix.rmatmat(y).tolist() == [[1], [6], [2]]

    @pytest.mark.parametrize(
        ("action", "message"),
        [
            pytest.param(lambda a: a @ np.zeros(2), r"not \(2,\)", id="length"),
            pytest.param(lambda a: a @ np.zeros((3, 1, 1)), r"\(3, k\)", id="rank"),
            pytest.param(lambda a: a.matvec(np.zeros((3, 2))), "see matmat", id="vec"),
            pytest.param(lambda a: a.matmat(np.zeros(3)), "see matvec", id="mat"),
        ],
    )
    def test_wrong_shapes_are_found_here(
        self, matrix: Any, multiplier: Multiplier, action: Any, message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            action(matrix)

        assert multiplier.calls == []

    def test_complex_operands(self, matrix: Any) -> None:
        with pytest.raises(TypeError, match="real numbers"):
            matrix @ np.array([1j, 0, 0])


class TestLinearOperator:
    @pytest.fixture
    def mode(self) -> str:
        return "sync"

    @pytest.mark.parametrize("make", ["ours", "scipy's"])
    def test_scipy_takes_it(self, matrix: Any, make: str) -> None:
        own = make == "ours"
        operator = matrix.as_linear_operator() if own else spla.aslinearoperator(matrix)

        assert (operator.shape, operator.dtype) == ((2, 3), np.float32)
        assert operator.matvec(np.ones(3)).tolist() == [3, 3]
        assert operator.rmatvec(np.ones(2)).tolist() == [1, 3, 2]
        assert (operator @ np.eye(3)).tolist() == DENSE.tolist()
        assert (operator.T @ np.eye(2)).tolist() == DENSE.T.tolist()


class TestJob:
    def test_cg_says_everything(self, connect: Any, fake: Any) -> None:
        square = {**MATRIX, "shape": [3, 3]}
        server = fake(httpx2.Response(200, json=square), job("queued"))
        client = connect(server)

        client.jobs.cg(
            client.matrices.get("m-1"),
            [1, 2, 3],
            x0=np.zeros(3),
            rtol=1e-8,
            maxiter=50,
            preconditioner="jacobi",
            idempotency_key="mine",
        )

        assert server.json["kind"] == "cg"
        assert server.json["parameters"] == {
            "matrix": "m-1",
            "rtol": 1e-8,
            "atol": 0.0,
            "maxiter": 50,
            "preconditioner": "jacobi",
            "binary_data_output": True,
        }
        described = [(t["name"], t["datatype"]) for t in server.json["inputs"]]
        assert described == [("b", "FP64"), ("x0", "FP64")]
        assert server.requests[-1].headers["Idempotency-Key"] == "mine"

    def test_a_right_hand_side_that_does_not_fit(self, connect: Any, fake: Any) -> None:
        server = fake(httpx2.Response(200, json={**MATRIX, "shape": [2, 2]}))
        client = connect(server)

        with pytest.raises(
            ValueError, match=r"b has shape \(3,\); \(2,\) or \(2, k\) is right"
        ):
            client.jobs.cg(client.matrices.get("m-1"), [1, 2, 3])

        assert len(server.requests) == 1

    def test_result_waits_then_fetches(
        self, connect: Any, fake: Any, answer_tensors: Callable[..., Any]
    ) -> None:
        server = fake(
            job("queued"),
            job("running"),
            job("succeeded", result=RESULT),
            answer_tensors({"x": np.array([1.0, 2.0])}),
        )

        result = connect(server).jobs.get("j").result()

        assert result.x.tolist() == [1, 2]
        assert (result.status, result.iterations) == ("converged", 7)
        assert result.converged
        waits = [request.url.params.get("wait") for request in server.requests]
        assert waits == [None, "30.000", "30.000", None]
        assert server.requests[1].extensions["timeout"]["read"] == 90.0

    def test_progress_is_told(self, connect: Any, fake: Any) -> None:
        server = fake(
            job("queued"),
            job("running", progress={"iterations": 5}),
            job("succeeded", progress={"iterations": 9}),
        )
        told: list[Any] = []

        ended = connect(server).jobs.get("j").wait(progress=told.append)

        assert [info.progress["iterations"] for info in told] == [5, 9]
        assert ended.status == "succeeded"
        assert server.requests[1].url.params["wait"] == "1.000"

    def test_wait_gives_up_in_time(self, connect: Any, fake: Any) -> None:
        waiting = connect(fake(job("running"))).jobs.get("j")

        with pytest.raises(nnz.RequestTimeoutError, match=r"still running after 0\.01"):
            waiting.wait(timeout=0.01)

    def test_a_job_that_has_ended_is_not_asked_again(
        self, connect: Any, fake: Any
    ) -> None:
        server = fake(job("succeeded"))

        connect(server).jobs.get("j").wait()

        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("status", "kind", "message"),
        [
            ("failed", nnz.JobFailedError, "job j failed: out of memory"),
            ("cancelled", nnz.JobCancelledError, "job j was cancelled"),
        ],
    )
    def test_no_result(
        self, connect: Any, fake: Any, status: str, kind: type[Exception], message: str
    ) -> None:
        ended = connect(fake(job(status, error="out of memory"))).jobs.get("j")

        with pytest.raises(kind, match=message):
            ended.result()

    def test_a_result_that_lacks_something(
        self, connect: Any, fake: Any, answer_tensors: Callable[..., Any]
    ) -> None:
        server = fake(job("succeeded", result={}), answer_tensors({"y": np.ones(1)}))

        with pytest.raises(nnz.ProtocolError, match=r"lacks 'x'; .* \['y'\]"):
            connect(server).jobs.get("j").result()

    def test_cancel_and_refresh_update_the_handle(
        self, connect: Any, fake: Any
    ) -> None:
        held = connect(fake(job("running"), job("cancelled"))).jobs.get("j")

        held.cancel()

        assert held.status == "cancelled"
        assert repr(held) == "Job('j', kind='cg', status='cancelled')"
        assert held.refresh().status == "cancelled"


def stream(*events: tuple[str, int, dict[str, Any]], end: str = "") -> httpx2.Response:
    """A stream of events as a server sends it."""
    text = ":\n\n" + "".join(
        f"event: {name}\nid: {number}\n"
        f"data: {json.dumps({'id': 'j', 'kind': 'cg', 'revision': number, **data})}\n\n"
        for name, number, data in events
    )
    headers = {"Content-Type": "text/event-stream"}
    return httpx2.Response(200, headers=headers, content=(text + end).encode())


QUEUED = ("status", 1, {"status": "queued"})
RUNNING = ("status", 2, {"status": "running"})
FURTHER = ("progress", 3, {"status": "running", "progress": {"iterations": 5}})
END = ("end", 4, {"status": "succeeded"})


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_client, _async_client):
        monkeypatch.setattr(module, "RECONNECT", 0.0)


class TestEvents:
    def test_each_change_until_the_end(self, connect: Any, fake: Any) -> None:
        server = fake(job("queued"), stream(QUEUED, RUNNING, FURTHER, END, QUEUED))
        held = connect(server).jobs.get("j")

        told = [(info.status, info.revision) for info in held.events()]

        assert told == [
            ("queued", 1),
            ("running", 2),
            ("running", 3),
            ("succeeded", 4),
        ]
        assert held.status == "succeeded"
        request = server.requests[-1]
        assert (request.url.path, len(server.requests)) == ("/v1/jobs/j/events", 2)
        assert request.headers["Accept"] == "text/event-stream"
        assert "Last-Event-ID" not in request.headers

    @pytest.mark.usefixtures("at_once")
    @pytest.mark.parametrize(
        "broken",
        [
            pytest.param(stream(QUEUED, RUNNING, end="retry: 1000\n\n"), id="drained"),
            pytest.param(stream(QUEUED, RUNNING, end="event: e"), id="cut"),
        ],
    )
    def test_goes_on_where_it_was_cut(
        self, connect: Any, fake: Any, broken: httpx2.Response
    ) -> None:
        refused = httpx2.Response(503, json={"error": "draining"})
        failed = httpx2.ConnectError("refused")
        server = fake(job("queued"), broken, refused, failed, stream(FURTHER, END))

        told = [info.revision for info in connect(server).jobs.get("j").events()]

        assert told == [1, 2, 3, 4]
        lasts = [r.headers.get("Last-Event-ID") for r in server.requests[1:]]
        assert lasts == [None, "2", "2", "2"]

    def test_nothing_left(self, connect: Any, fake: Any) -> None:
        server = fake(job("queued"), httpx2.Response(204))

        assert list(connect(server).jobs.get("j").events()) == []

    def test_a_refusal(self, connect: Any, fake: Any) -> None:
        gone = httpx2.Response(404, json={"error": "there is no job 'j'"})
        held = connect(fake(job("queued"), gone)).jobs.get("j")

        with pytest.raises(nnz.NotFoundError, match="no job 'j'"):
            list(held.events())

    def test_not_a_stream(self, connect: Any, fake: Any) -> None:
        held = connect(fake(job("queued"), job("running"))).jobs.get("j")

        with pytest.raises(nnz.ProtocolError, match="text/event-stream"):
            list(held.events())
