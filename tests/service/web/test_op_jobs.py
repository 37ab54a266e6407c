"""Operations and factors as jobs over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.web.doubler import running
from service.web.wire import put_matrix, read, send

from nnz_kernels.backends import Backend
from nnz_service.dataplane import Admission, InlineDataplane
from nnz_service.gateway import Limits
from nnz_service.jobs import SqlStore
from nnz_service.repository import Repository
from nnz_service.web import create_app
from nnz_service.worker import Host, Toolbox

A = scipy.sparse.csr_array(np.array([[2.0, 0, 1], [0, 3, 0], [4, 0, 5]]))
WIDE = scipy.sparse.csr_array(np.ones((2, 3)))


@pytest.fixture(scope="module")
def ids(real: httpx2.Client) -> dict[str, str]:
    return {"A": put_matrix(real, A), "W": put_matrix(real, WIDE)}


def ended(http: httpx2.Client, kind: str, tensors: Any, **params: Any) -> Any:
    asked = send(http, "/v1/jobs", tensors, params, kind=kind)
    assert asked.status_code == 202, asked.text
    return http.get(f"/v1/jobs/{asked.json()['id']}?wait=30").json()


def test_a_product(real: httpx2.Client, ids: dict[str, str]) -> None:
    """The matrix is stored, named and resident at its next use; no tensors remain."""
    job = ended(real, "op", {}, op="spgemm", matrix=ids["W"], other=ids["A"], name="wa")

    made = job["result"]["matrix"]
    found = read(real.get(f"/v1/matrices/{made['id']}/content"))
    assert job["status"] == "succeeded"
    assert (made["name"], made["shape"], job["result"]["op"]) == (
        "wa",
        [2, 3],
        "spgemm",
    )
    np.testing.assert_array_equal(found["data"], [6, 3, 6, 6, 3, 6])
    result = real.get(f"/v1/jobs/{job['id']}/result", headers={"Accept": "*/*"})
    assert result.json()["outputs"] == []


def test_a_sampled_product(real: httpx2.Client, ids: dict[str, str]) -> None:
    x = np.arange(6.0).reshape(3, 2)

    job = ended(real, "op", {"x": x, "y": x}, op="sddmm", matrix=ids["A"])

    made = job["result"]["matrix"]["id"]
    found = read(real.get(f"/v1/matrices/{made}/content"))["data"]
    np.testing.assert_array_equal(found, (x @ x.T)[A.toarray() != 0])


def test_factors_are_those_of_the_operation(
    real: httpx2.Client, ids: dict[str, str]
) -> None:
    """A pair is a complex number, of which one complex matrix is enough."""
    z = put_matrix(real, scipy.sparse.csr_array(A.toarray() * (2 - 1j)))
    for asked in (
        {"op": "add", "matrix": ids["A"], "other": z, "alpha": 2, "beta": [0.5, -1]},
        {"op": "add", "matrix": z, "other": ids["A"], "alpha": [0, 1.0]},
        {"op": "scale", "matrix": z, "alpha": [1, 2]},
    ):
        job = ended(real, "op", {}, **asked)
        op, params = asked["op"], {k: v for k, v in asked.items() if k != "op"}
        at_once = send(real, f"/v1/ops/{op}", {}, params)

        assert job["status"] == "succeeded", job
        assert job["result"]["matrix"]["id"] == at_once.json()["matrix"]["id"]


def test_factors_serve_later_solves(real: httpx2.Client, ids: dict[str, str]) -> None:
    job = ended(real, "factorize", {}, matrix=ids["A"])
    solved = ended(
        real, "solve", {"b": np.ones(3)}, matrix=ids["A"], method="direct", rtol=1e-12
    )

    assert job["result"]["factors"]["kept"] is True
    assert solved["result"]["status"] == "converged"
    assert solved["result"]["factors"]["reused"] is True


@pytest.mark.parametrize(
    ("kind", "params", "code", "text"),
    [
        ("op", {"op": "norm", "matrix": "A"}, 400, "as a job there are spgemm, add"),
        ("op", {"op": "add", "matrix": "A"}, 400, "add needs parameters.other"),
        ("op", {"op": "add", "matrix": "A", "other": "W"}, 422, "cannot be added"),
        ("op", {"op": "spgemm", "matrix": "A", "other": "W"}, 422, "be multiplied"),
        (
            "op",
            {"op": "spgemm", "matrix": "A", "other": "A", "beta": 1},
            400,
            "no parameter 'beta'",
        ),
        (
            "op",
            {"op": "add", "matrix": "A", "other": "A", "beta": "x"},
            400,
            "must be a number, or [real, imaginary]",
        ),
        *(
            (
                "op",
                {"op": "scale", "matrix": "A", "alpha": alpha},
                400,
                "must be a number, or [real, imaginary]",
            )
            for alpha in (True, None, [1], [1, 2, 3], [1, False], ["1", 2], {"re": 1})
        ),
        (
            "op",
            {"op": "scale", "matrix": "A", "alpha": [1, 0]},
            422,
            "parameters.alpha is [1, 0], but the matrix is real",
        ),
        (
            "op",
            {"op": "add", "matrix": "A", "other": "A", "beta": [0.0, 1]},
            422,
            "parameters.beta is [0.0, 1], but the matrices are real",
        ),
        ("op", {"op": "scale", "matrix": "m-0123456789abcdef"}, 404, "no matrix"),
        ("op", {"op": "scale", "matrix": "A", "name": ""}, 400, "parameters.name"),
        ("factorize", {"matrix": "W"}, 422, "needs a square matrix"),
        ("factorize", {}, 400, "parameters.matrix"),
        ("factorize", {"matrix": "A", "rtol": 1}, 400, "no parameter 'rtol'"),
    ],
)
def test_refusals(
    real: httpx2.Client,
    ids: dict[str, str],
    kind: str,
    params: dict[str, Any],
    code: int,
    text: str,
) -> None:
    given = {
        k: ids[v] if k != "op" and isinstance(v, str) and v in ids else v
        for k, v in params.items()
    }

    answer = send(real, "/v1/jobs", {}, given, kind=kind)

    assert answer.status_code == code, answer.text
    assert text in answer.json()["error"]


def test_what_turns_out_not_to_fit_fails(
    real: httpx2.Client, ids: dict[str, str]
) -> None:
    job = ended(real, "op", {"x": np.ones((3, 1))}, op="sddmm", matrix=ids["A"])
    singular = put_matrix(real, scipy.sparse.csr_array(np.ones((2, 2))))
    factors = ended(real, "factorize", {}, matrix=singular)
    long = ended(real, "op", {"rows": np.ones(99)}, op="scale", matrix=ids["A"])

    assert long["status"] == "failed"
    assert "of shape (99,)" in long["error"]
    assert job["status"] == factors["status"] == "failed"
    assert "'y' is missing" in job["error"]
    assert "singular" in factors["error"]


def test_content_takes_of_the_bytes_of_all(tmp_path: Path) -> None:
    """A matrix that does not fit beside what is under way is not read."""
    repository, jobs = Repository(tmp_path), SqlStore(tmp_path / "catalog.sqlite")
    host = Host(repository, jobs, Toolbox(Backend.REFERENCE))
    limits = Limits(max_body=4096, max_inflight_bytes=5000)
    app = create_app(
        limits=limits,
        dataplane=InlineDataplane(host),
        repository=repository,
        jobs=jobs,
        admission=Admission(limits.max_inflight, limits.max_inflight_bytes),
    )
    small, large = scipy.sparse.eye_array(10), scipy.sparse.eye_array(400)
    with (
        running(app) as address,
        httpx2.Client(base_url=f"http://{address}", timeout=60) as http,
    ):
        held, other = put_matrix(http, small), put_matrix(http, large)
        fits = http.get(f"/v1/matrices/{held}/content")
        refused = http.get(f"/v1/matrices/{other}/content")
        numbers = http.get(
            f"/v1/matrices/{held}/content", headers={"Accept": "application/json"}
        )

    assert (fits.status_code, refused.status_code) == (200, 413)
    assert numbers.json()["outputs"][0]["data"] == [*range(11)]
    repository.close()
    jobs.close()
