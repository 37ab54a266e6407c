"""Jobs: submit, wait, fetch, cancel."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI
from service.processes import until
from service.web.doubler import running
from service.web.wire import MATRIX, poisson, put_matrix, read, send

from nnz_service.dataplane import Admission
from nnz_service.jobs import SqlStore, Status
from nnz_service.jobs.memory import MemoryStore
from nnz_service.repository import Repository, bundles
from nnz_service.worker import attempt


@pytest.fixture(scope="module")
def small(real_server: str) -> str:
    """Id of a matrix of 20 unknowns."""
    with httpx2.Client(base_url=f"http://{real_server}", timeout=60) as client:
        return put_matrix(client, poisson(20).tocsr())


class TestJobs:
    def test_cg(self, real: httpx2.Client) -> None:
        """Submit, wait, fetch: the residual is what was asked for."""
        matrix = poisson(200).tocsr()
        key = put_matrix(real, matrix)
        b = np.random.default_rng(5).standard_normal(200)

        submitted = send(
            real, "/v1/jobs", {"b": b}, {"matrix": key, "rtol": 1e-10}, kind="cg"
        )
        job = real.get(f"/v1/jobs/{submitted.json()['id']}?wait=30").json()
        result = real.get(f"/v1/jobs/{job['id']}/result")

        assert submitted.status_code == 202
        assert job["status"] == "succeeded"
        assert job["result"]["status"] == "converged"
        x = read(result)["x"]
        assert np.linalg.norm(b - matrix @ x) <= 1e-9 * np.linalg.norm(b)
        shown = real.get(
            f"/v1/jobs/{job['id']}/result", headers={"Accept": "application/json"}
        )
        assert shown.json()["outputs"][0]["data"] == x.tolist()
        assert real.delete(f"/v1/jobs/{job['id']}").status_code == 204
        assert real.get(f"/v1/jobs/{job['id']}").status_code == 404

    @pytest.mark.parametrize("inputs", [{}, {"inputs": []}])
    def test_the_kind_is_looked_at_first(
        self, real: httpx2.Client, small: str, inputs: dict[str, Any]
    ) -> None:
        """Before the inputs, of which a kind says by itself what it needs."""
        asked = {"parameters": {"matrix": small}} | inputs
        for kind, code, text in (
            ("qr", 422, "there is no kind of job 'qr'; there are cg, solve, lp"),
            (None, 400, "'kind' must name the job: one of cg, solve"),
            (["lp"], 400, "'kind' must name the job: one of cg, solve"),
            ("cg", 422, "cg takes the inputs b and"),
        ):
            answer = real.post("/v1/jobs", json={"kind": kind} | asked)
            assert answer.status_code == code, answer.text
            assert text in answer.json()["error"]

    def test_solve(self, real: httpx2.Client) -> None:
        """Many right-hand sides by another method; each has its figures."""
        matrix = poisson(50).tocsr()
        key = put_matrix(real, matrix)
        b = np.random.default_rng(5).standard_normal((50, 3))
        asked = {"matrix": key, "method": "gmres", "preconditioner": "ilu0"}

        submitted = send(real, "/v1/jobs", {"b": b}, asked, kind="solve")
        job = real.get(f"/v1/jobs/{submitted.json()['id']}?wait=30").json()

        assert job["status"] == "succeeded"
        assert job["result"]["status"] == "converged"
        assert len(job["result"]["columns"]) == 3
        x = read(real.get(f"/v1/jobs/{job['id']}/result"))["x"]
        residuals = np.linalg.norm(b - matrix @ x, axis=0)
        assert (residuals <= 1e-5 * np.linalg.norm(b, axis=0)).all()
        assert real.get("/v1/jobs?kind=solve").json()["jobs"][0]["id"] == job["id"]

    def test_idempotency(self, real: httpx2.Client, small: str) -> None:
        """The same key and body is the same job; another body is refused."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}

        def submit(b: np.ndarray) -> httpx2.Response:
            parameters = {"matrix": small}
            return send(real, "/v1/jobs", {"b": b}, parameters, headers, kind="cg")

        first, again = submit(np.ones(20)), submit(np.ones(20))
        other = submit(np.zeros(20))

        assert first.json()["id"] == again.json()["id"]
        assert other.status_code == 422
        assert first.json()["id"] in other.json()["error"]
        assert "a new key for a new one" in other.json()["error"]

    def test_cancel(self, real: httpx2.Client) -> None:
        """A job that would run long ends soon after it is cancelled."""
        key = put_matrix(real, poisson(20_000).tocsr())
        parameters = {"matrix": key, "rtol": 0.0, "maxiter": 2_000_000_000}
        job = send(
            real, "/v1/jobs", {"b": np.ones(20_000)}, parameters, kind="cg"
        ).json()

        early = real.get(f"/v1/jobs/{job['id']}/result")
        cancelled = real.post(f"/v1/jobs/{job['id']}/cancel")
        ended = real.get(f"/v1/jobs/{job['id']}?wait=30").json()

        assert early.status_code == 409
        assert cancelled.status_code == 200
        assert ended["status"] in ("cancelled", "succeeded")
        assert job["id"] in [
            row["id"] for row in real.get("/v1/jobs?limit=1000").json()["jobs"]
        ]

    def test_cancel_does_not_wait_for_a_report(
        self, real: httpx2.Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The worker is told, and looks at the next slice."""
        monkeypatch.setattr(attempt, "REPORT", 600.0)
        monkeypatch.setattr(attempt, "FIRST_SAVE", 600.0)
        key = put_matrix(real, poisson(3_000).tocsr())
        parameters = {"matrix": key, "rtol": 0.0, "maxiter": 2_000_000_000}
        b = {"b": np.ones(3_000)}
        job = send(real, "/v1/jobs", b, parameters, kind="cg").json()
        path = f"/v1/jobs/{job['id']}"
        while real.get(path).json()["status"] == "queued":
            time.sleep(0.01)

        real.post(f"{path}/cancel")

        assert real.get(f"{path}?wait=30").json()["status"] == "cancelled"

    def test_the_key_of_a_job_whose_inputs_are_gone(
        self, real: httpx2.Client, real_home: Path, small: str
    ) -> None:
        """It still finds the job, and leaves nothing on the disk."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}

        def submit() -> str:
            b = {"b": np.full(20, 7.0)}
            asked = send(real, "/v1/jobs", b, {"matrix": small}, headers, kind="cg")
            return str(asked.json()["id"])

        job_id = submit()
        real.get(f"/v1/jobs/{job_id}?wait=30")
        store = SqlStore(real_home / "catalog.sqlite")
        inputs = store.get(job_id).inputs_sha
        assert inputs is not None
        store.drop_inputs(1000)
        store.close()
        (real_home / "blobs" / inputs).unlink()

        assert submit() == job_id
        assert not (real_home / "blobs" / inputs).exists()

    @pytest.mark.parametrize(
        ("kind", "parameters", "tensors", "code"),
        [
            pytest.param(None, {}, {"b": np.ones(7)}, 400, id="no kind"),
            pytest.param("lu", {}, {"b": np.ones(7)}, 422, id="unknown kind"),
            pytest.param("cg", {}, {"b": np.ones(7)}, 400, id="no matrix"),
            pytest.param(
                "cg",
                {"matrix": "A", "method": "gmres"},
                {"b": np.ones(20)},
                400,
                id="cg has no method",
            ),
            pytest.param(
                "solve",
                {"matrix": "A", "method": "lu"},
                {"b": np.ones(20)},
                422,
                id="no such method",
            ),
            pytest.param(
                "solve",
                {"matrix": "A", "method": 3},
                {"b": np.ones(20)},
                422,
                id="method is a number",
            ),
            pytest.param(
                "solve",
                {"matrix": "A", "method": ["cg"]},
                {"b": np.ones(20)},
                422,
                id="method is a list",
            ),
            pytest.param(
                "solve",
                {"matrix": "A", "preconditioner": "ilu0"},
                {"b": np.ones(20)},
                422,
                id="ilu0 is not for cg",
            ),
            pytest.param(
                "solve",
                {"matrix": "A", "restart": 0},
                {"b": np.ones(20)},
                422,
                id="restart",
            ),
            pytest.param(
                "solve",
                {"matrix": "A", "time_limit": "1 h"},
                {"b": np.ones(20)},
                400,
                id="time limit",
            ),
            pytest.param(
                "solve", {"matrix": "A"}, {"b": np.ones((20, 0))}, 422, id="no columns"
            ),
            pytest.param(
                "solve",
                {"matrix": "A"},
                {"b": np.ones((20, 257))},
                422,
                id="too many columns",
            ),
            pytest.param(
                "solve",
                {"matrix": "A"},
                {"b": np.ones((20, 2)), "x0": np.ones(20)},
                422,
                id="one guess for two",
            ),
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
        real: httpx2.Client,
        small: str,
        kind: str | None,
        parameters: dict[str, Any],
        tensors: dict[str, Any],
        code: int,
    ) -> None:
        """A job that cannot run is refused before it is written down."""
        if parameters.get("matrix") == "A":
            parameters = {**parameters, "matrix": small}
        fields = {} if kind is None else {"kind": kind}

        answer = send(real, "/v1/jobs", tensors, parameters, **fields)

        assert answer.status_code == code, answer.text
        assert answer.json()["error"]

    def test_not_square(self, real: httpx2.Client) -> None:
        """CG on a matrix that is not square is a 422 with its shape."""
        key = put_matrix(real, MATRIX)

        answer = send(real, "/v1/jobs", {"b": np.ones(7)}, {"matrix": key}, kind="cg")

        assert answer.status_code == 422
        assert "7 x 5" in answer.json()["error"]

    @pytest.mark.parametrize("query", ["wait=-1", "wait=61", "wait=x", "wait=nan"])
    def test_bad_wait(self, real: httpx2.Client, query: str) -> None:
        """`wait` is between 0 and 60 seconds."""
        answer = real.get(f"/v1/jobs/any?{query}")

        assert answer.status_code == 400
        assert "wait" in answer.json()["error"]


def test_equal_jobs_in_and_out(real_server: str, small: str) -> None:
    """Equal jobs share the blob of their inputs; forgetting one spares the others."""
    ended: list[tuple[str, int]] = []

    def work() -> None:
        with httpx2.Client(base_url=f"http://{real_server}", timeout=60) as http:
            for _ in range(8):
                b = {"b": np.ones(20)}
                asked = send(http, "/v1/jobs", b, {"matrix": small}, kind="cg")
                path = f"/v1/jobs/{asked.json()['id']}"
                status = http.get(f"{path}?wait=30").json()["status"]
                ended.append((status, http.delete(path).status_code))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ended == [("succeeded", 204)] * 32


class TestLargeResults:
    """Results are loaded whole: they take of the bytes that all requests share."""

    @pytest.fixture
    def stored(self, tmp_path: Path) -> Iterator[tuple[Repository, MemoryStore, str]]:
        """A job with a result of 8 KB, where it lies, and its id."""
        repository, jobs = Repository(tmp_path), MemoryStore()
        blob = bundles.save(repository.blobs, {"x": np.ones(1000)})
        job_id = jobs.submit("cg", {}).id
        job = jobs.claim("w", ["cg"])
        assert job is not None
        done = {"result_sha": blob.sha256, "result_bytes": blob.bytes}
        jobs.finish(job_id, job.token, Status.SUCCEEDED, **done)
        yield repository, jobs, f"/v1/jobs/{job_id}/result"
        repository.close()

    @pytest.mark.parametrize(
        ("slots", "nbytes", "code"),
        [(2, 10_000, 200), (1, 10_000, 429), (2, 9_000, 429), (2, 8_000, 413)],
    )
    def test_has_a_slot_and_bytes(
        self, make_app: Callable[..., FastAPI],
        stored: tuple[Repository, MemoryStore, str], slots: int, nbytes: int, code: int,
    ) -> None:  # fmt: skip
        repository, jobs, path = stored
        admission = Admission(slots, nbytes)
        app = make_app(jobs=jobs, repository=repository, admission=admission)
        with (
            running(app) as address,
            httpx2.Client(base_url=f"http://{address}", timeout=10) as http,
        ):
            with admission.reserve(1000):
                answer = http.get(path)
                assert http.get(path.removesuffix("/result")).status_code == 200
            until(lambda: admission.used_slots == 0)

        assert answer.status_code == code
        assert ("retry-after" in answer.headers) == (code == 429)
        assert admission.used_bytes == 0
