"""Linear programs over HTTP: a file or a matrix in, answers by both methods out."""

from __future__ import annotations

import errno
import gzip
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.algebra.lp.programs import WYNDOR_MPS
from service.web.wire import put_matrix, read, send

from nnz_service.errors import ImpossibleError
from nnz_service.jobs import Job, SqlStore, Status
from nnz_service.repository import bundles
from nnz_service.web import lp_starts

MATRIX = scipy.sparse.csr_array(np.array([[1.0, 0], [0, 2], [3, 2]]))
INPUTS = {"c": np.array([3.0, 5]), "uc": np.array([4.0, 12, 18])}


def put_mps(
    http: httpx2.Client, content: bytes, kind: str = "application/x-mps"
) -> Any:
    return http.post("/v1/matrices", content=content, headers={"Content-Type": kind})


def solve(
    http: httpx2.Client, inputs: dict[str, Any], **parameters: Any
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    asked = send(http, "/v1/jobs", inputs, parameters, kind="lp")
    assert asked.status_code == 202, asked.text
    job = http.get(f"/v1/jobs/{asked.json()['id']}?wait=30").json()
    assert job["status"] == "succeeded", job
    return job["result"], read(http.get(f"/v1/jobs/{job['id']}/result"))


@pytest.mark.parametrize("method", ["pdhg", "highs"])
def test_a_file_is_a_program(real: httpx2.Client, method: str) -> None:
    """The file alone is enough, packed or not, and its matrix multiplies as well."""
    put = put_mps(real, WYNDOR_MPS.encode())
    packed = put_mps(real, gzip.compress(WYNDOR_MPS.encode()), "text/x-mps")
    assert put.status_code in (200, 201), put.text
    assert packed.json()["id"] == put.json()["id"]
    assert put.json()["shape"] == [3, 2]

    result, outputs = solve(real, {}, matrix=put.json()["id"], method=method)

    assert (result["status"], result["method"]) == ("optimal", method)
    assert result["objective"] == pytest.approx(36, rel=1e-4)
    np.testing.assert_allclose(outputs["x"], [2, 6], rtol=1e-4)
    np.testing.assert_allclose(outputs["y"], [0, -1.5, -1], atol=1e-4)
    parameters = {"matrix": put.json()["id"]}
    product = send(real, "/v1/ops/spmv", {"x": np.array([1.0, 1])}, parameters)
    np.testing.assert_array_equal(read(product)["y"], [1, 2, 5])


def test_a_matrix_and_vectors_are_a_program(real: httpx2.Client) -> None:
    """And vectors of a job replace those of a file."""
    key = put_matrix(real, MATRIX)
    result, _ = solve(real, INPUTS, matrix=key, maximize=True, offset=1.0)
    assert result["objective"] == pytest.approx(37)
    assert result["method"] == "highs"  # auto

    stored = put_mps(real, WYNDOR_MPS.encode()).json()["id"]
    result, _ = solve(real, {"uc": np.array([4.0, 10, 18])}, matrix=stored)
    assert result["objective"] == pytest.approx(3 * 8 / 3 + 25)

    start = {"x0": np.array([2.0, 6]), "y0": np.array([0, -1.5, -1])}
    result, _ = solve(real, start, matrix=stored)
    assert (result["status"], result["method"]) == ("optimal", "pdhg")


def test_a_proof_that_there_is_nothing(real: httpx2.Client) -> None:
    key = put_matrix(real, scipy.sparse.csr_array(np.ones((2, 2))))
    inputs = {
        "c": np.ones(2), "lc": np.array([-np.inf, 2]), "uc": np.array([1, np.inf])
    }  # fmt: skip
    for method in ("pdhg", "highs"):
        result, outputs = solve(real, inputs, matrix=key, method=method)
        assert result["status"] == "infeasible"
        np.testing.assert_allclose(outputs["ray"], [-1, 1], rtol=1e-6)


def test_a_broken_file_is_refused_with_its_line(real: httpx2.Client) -> None:
    answer = put_mps(
        real, WYNDOR_MPS.replace("windows profit 5", "windows profit x").encode()
    )
    assert answer.status_code == 422
    assert "line 12: 'x' is no number" in answer.json()["error"]


@pytest.mark.parametrize(
    ("inputs", "parameters", "code", "says"),
    [
        pytest.param({}, {"eps": 1}, 400, "no parameter 'eps'", id="parameter"),
        pytest.param({}, {"eps_rel": "1"}, 400, "must be a number", id="text"),
        pytest.param({}, {"eps_abs": 2}, 422, "from 0 to below 1", id="tolerance"),
        pytest.param(
            {}, {"eps_rel": 0, "eps_abs": 0}, 422, "both almost 0", id="exact"
        ),
        pytest.param(
            {}, {"eps_rel": 1e-15, "eps_abs": 0.0}, 422, "both almost 0", id="finest"
        ),
        pytest.param({}, {"method": "ipm"}, 422, "auto, pdhg, highs", id="method"),
        pytest.param({}, {"maximize": 1}, 400, "true or false", id="maximize"),
        pytest.param({}, {"presolve": 1}, 400, "true or false", id="presolve"),
        pytest.param({}, {"max_iterations": 0}, 422, "from 1", id="limit"),
        pytest.param({}, {"time_limit": 0}, 422, "more than 0", id="time"),
        pytest.param({}, {"polish": True}, 400, "must be a number", id="bool"),
        pytest.param({}, {"polish": 1e-15}, 422, "from 1e-14", id="polish"),
        pytest.param(
            {}, {"polish": 0.1, "method": "highs"}, 422, "the method pdhg", id="rival"
        ),
        pytest.param({}, {"start": 1}, 400, "the id of a job", id="start"),
        pytest.param({}, {"start": "j-1"}, 404, "no job 'j-1'", id="absent"),
        pytest.param(
            {"x0": [1.0, 1]}, {"start": "j-1"}, 422, "stands for x0", id="two starts"
        ),
        pytest.param(
            {}, {"start": "j-1", "method": "highs"}, 422, "not for highs", id="highs"
        ),
        pytest.param(
            {"y0": [1.0, 1, 1]}, {"presolve": True}, 422, "through presolve", id="both"
        ),
        pytest.param({"b": [1.0]}, {}, 422, "no input 'b'", id="input"),
        pytest.param({"c": [1.0]}, {}, 422, "needs [2]", id="shape"),
        pytest.param({"c": [1.0, np.inf]}, {}, 422, "at 1", id="infinite"),
        pytest.param({"uc": [1.0, np.nan, 1]}, {}, 422, "a NaN at 1", id="nan"),
        pytest.param(
            {"lv": [0.0, 3], "uv": [1.0, 2]}, {}, 422, "must not pass", id="crossed"
        ),
    ],
)
def test_wrong_requests_are_refused_before_they_wait(
    real: httpx2.Client,
    inputs: dict[str, Any],
    parameters: dict[str, Any],
    code: int,
    says: str,
) -> None:
    key = put_matrix(real, MATRIX)
    given = {"c": INPUTS["c"]} | inputs
    answer = send(real, "/v1/jobs", given, {"matrix": key} | parameters, kind="lp")
    assert answer.status_code == code, answer.text
    assert says in answer.json()["error"]


def submit(http: httpx2.Client, inputs: dict[str, Any], **parameters: Any) -> str:
    """Submit a program and wait; returns the id of the job."""
    asked = send(http, "/v1/jobs", inputs, parameters, kind="lp")
    assert asked.status_code == 202, asked.text
    http.get(f"/v1/jobs/{asked.json()['id']}?wait=30")
    return str(asked.json()["id"])


def test_a_job_starts_where_another_ended(real: httpx2.Client, real_home: Path) -> None:
    """At its solution, which is an input of its own: the earlier one may go."""
    key = put_matrix(real, MATRIX)
    asked = {"matrix": key, "maximize": True, "method": "pdhg", "presolve": False}
    earlier = submit(real, INPUTS, **asked)
    cold = real.get(f"/v1/jobs/{earlier}").json()["result"]["iterations"]

    later = send(real, "/v1/jobs", INPUTS, asked | {"start": earlier}, kind="lp")
    assert later.status_code == 202, later.text
    assert real.delete(f"/v1/jobs/{earlier}").status_code == 204
    with closing(SqlStore(real_home / "catalog.sqlite")) as store:
        kept = store.get(later.json()["id"]).inputs_sha
    assert kept is not None
    inputs = bundles.load(real_home / "blobs" / kept)
    np.testing.assert_allclose(inputs["x0"], [2, 6], rtol=1e-4)
    assert {*inputs} == {"x0", "y0", *INPUTS}
    job = real.get(f"/v1/jobs/{later.json()['id']}?wait=30").json()

    assert job["params"]["start"] == earlier
    assert job["result"]["objective"] == pytest.approx(36, rel=1e-5)
    assert job["result"]["iterations"] <= 40 < cold  # the first look finds it


def test_a_rough_solution_is_polished_and_time_is_told(real: httpx2.Client) -> None:
    key = put_matrix(real, MATRIX)
    asked = {"matrix": key, "maximize": True, "eps_rel": 0.05, "polish": 1e-11}
    result, _ = solve(real, INPUTS, presolve=False, **asked)
    assert (result["status"], result["method"]) == ("optimal", "pdhg")
    assert result["polish"]["reached"]
    assert result["relative_primal_residual"] <= 1e-11
    assert result["relative_dual_residual"] <= 1e-11
    assert result["objective"] == pytest.approx(36, rel=0.1)
    assert result["seconds"] > 0


def test_what_cannot_be_a_start_is_told(real: httpx2.Client) -> None:
    key = put_matrix(real, MATRIX)
    other = put_matrix(real, scipy.sparse.csr_array(np.eye(3)))
    square = send(real, "/v1/jobs", {"b": np.ones(3)}, {"matrix": other}, kind="cg")
    real.get(f"/v1/jobs/{square.json()['id']}?wait=30")
    failed = submit(real, {"c": np.ones(2), "uv": np.array([-1.0, 1])}, matrix=key)
    wide = submit(real, {"c": np.ones(3)}, matrix=other, presolve=False, method="pdhg")

    for start, code, says in (
        (square.json()["id"], 422, "it must be of kind 'lp'"),
        (failed, 409, "which is failed; it must have succeeded"),
        (wide, 422, "on a matrix of 3 x 3; this one is 3 x 2"),
    ):
        answer = send(
            real, "/v1/jobs", INPUTS, {"matrix": key, "start": start}, kind="lp"
        )
        assert (answer.status_code, says in answer.json()["error"]) == (code, True), (
            answer.text
        )


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        pytest.param([], [], "found no values to start from", id="none"),
        pytest.param([1.0, np.inf], [1.0], "not all finite", id="infinite"),
        pytest.param(
            [1.0, 1], [], "on a matrix of 0 x 2; this one is 1 x 2", id="half"
        ),
    ],
)
def test_values_that_cannot_be_a_start_are_told(
    x: list[float], y: list[float], says: str
) -> None:
    job = Job("j-1", "lp", {}, Status.SUCCEEDED, 0.0)
    with pytest.raises(ImpossibleError, match=f"start is job j-1.*{says}"):
        lp_starts.check_values(job, np.array(x), np.array(y), (1, 2))


def test_costs_are_needed(real: httpx2.Client) -> None:
    """Of a matrix; a stored program has its own. One tolerance of 0 is no matter."""
    key = put_matrix(real, MATRIX)
    refused = send(real, "/v1/jobs", {"uc": INPUTS["uc"]}, {"matrix": key}, kind="lp")
    stored = put_mps(real, WYNDOR_MPS.encode()).json()["id"]

    assert refused.status_code == 422, refused.text
    assert "lp needs the costs as the input c" in refused.json()["error"]
    for one in ("eps_rel", "eps_abs"):
        result, _ = solve(real, {}, matrix=stored, **{one: 0})
        assert result["status"] == "optimal"


def test_no_descriptor_to_look_for_costs(
    real: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker looks, when there is one."""

    def none_left(path: Path) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(bundles, "names", none_left)
    key = put_matrix(real, MATRIX)

    taken = send(real, "/v1/jobs", {"uc": INPUTS["uc"]}, {"matrix": key}, kind="lp")

    assert taken.status_code == 202


def test_a_damaged_file_is_for_the_worker(real: httpx2.Client, real_home: Path) -> None:
    """It may have had costs: what is wrong with it is told by the job."""
    before = {*(real_home / "blobs").rglob("*")}
    key = put_matrix(real, scipy.sparse.csr_array(np.array([[0.125, 8192]])))
    (blob,) = {*(real_home / "blobs").rglob("*")} - before
    blob.chmod(0o600)
    blob.write_bytes(b"no archive")

    asked = send(real, "/v1/jobs", {}, {"matrix": key}, kind="lp")

    assert asked.status_code == 202, asked.text
    job = real.get(f"/v1/jobs/{asked.json()['id']}?wait=30").json()
    assert job["status"] == "failed"
    assert real.delete(f"/v1/matrices/{key}").status_code == 204
