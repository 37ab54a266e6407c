"""Graph algorithms and eigenpairs as jobs over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.web.test_op_jobs import ended
from service.web.wire import put_matrix, read, send

from nnz_service.algebra.graphs import __all__ as courses
from nnz_service.web.graph_jobs import ALGORITHMS

#: 0 -> 1 -> 2 -> 0 with weights 1, 2, 4, and 3 by itself.
CYCLE = scipy.sparse.csr_array(
    np.array([[0.0, 1, 0, 0], [0, 0, 2, 0], [4, 0, 0, 0], [0, 0, 0, 0]])
)
PATH = scipy.sparse.csr_array(np.diag([2.0] * 5) - np.eye(5, k=1) - np.eye(5, k=-1))


@pytest.fixture(scope="module")
def ids(real: httpx2.Client) -> dict[str, str]:
    return {
        "C": put_matrix(real, CYCLE),
        "P": put_matrix(real, PATH),
        "W": put_matrix(real, scipy.sparse.csr_array(np.ones((2, 3)))),
        "N": put_matrix(real, scipy.sparse.csr_array(-CYCLE)),
    }


def answer(http: httpx2.Client, kind: str, **params: Any) -> tuple[Any, Any]:
    job = ended(http, kind, {}, **params)
    assert job["status"] == "succeeded", job
    return job["result"], read(http.get(f"/v1/jobs/{job['id']}/result"))


@pytest.mark.parametrize(
    ("algorithm", "params", "name", "wanted"),
    [
        ("bfs", {"source": 1}, "levels", [2, 0, 1, -1]),
        ("sssp", {"source": 1}, "distances", [6, 0, 2, np.inf]),
        ("components", {}, "labels", [0, 0, 0, 1]),
        ("pagerank", {"damping": 0}, "ranks", [0.25] * 4),
    ],
)
def test_numbers_of_vertices(
    real: httpx2.Client,
    ids: dict[str, str],
    algorithm: str,
    params: Any,
    name: str,
    wanted: Any,
) -> None:
    told, found = answer(real, "graph", algorithm=algorithm, matrix=ids["C"], **params)

    assert told["status"] == "converged"
    assert found[name].tolist() == wanted


def test_triangles(real: httpx2.Client, ids: dict[str, str]) -> None:
    """A number alone: there are no tensors."""
    job = ended(real, "graph", {}, algorithm="triangles", matrix=ids["C"])

    assert job["result"] == {"status": "converged", "triangles": 1}
    result = real.get(f"/v1/jobs/{job['id']}/result", headers={"Accept": "*/*"})
    assert result.json()["outputs"] == []


def test_a_negative_cycle(real: httpx2.Client, ids: dict[str, str]) -> None:
    told, _ = answer(real, "graph", algorithm="sssp", matrix=ids["N"], source=0)

    assert told["status"] == "unbounded"


def test_eigenpairs(real: httpx2.Client, ids: dict[str, str]) -> None:
    """2 - 2 cos(pi j / 6)."""
    told, found = answer(
        real, "eigs", matrix=ids["P"], k=2, which="smallest", tol=1e-12
    )

    wanted = 2 - 2 * np.cos(np.pi * np.array([1, 2]) / 6)
    assert (told["status"], told["converged"]) == ("converged", 2)
    np.testing.assert_allclose(found["eigenvalues"], wanted, atol=1e-12)
    x = found["eigenvectors"]
    np.testing.assert_allclose(PATH @ x, x * wanted, atol=1e-11)
    assert (found["residuals"] < 1e-11).all()


@pytest.mark.parametrize(
    ("kind", "params", "code", "text"),
    [
        ("graph", {"matrix": "C"}, 400, "parameters.algorithm is 'None'; there are pa"),
        ("graph", {"algorithm": "bfs", "matrix": "C"}, 400, "source is None, but must"),
        ("graph", {"algorithm": "bfs", "matrix": "C", "source": 4}, 422, "from 0 to 3"),
        ("graph", {"algorithm": "bfs", "matrix": "C", "tol": 1}, 400, "no parameter"),
        ("graph", {"algorithm": "triangles", "matrix": "W"}, 422, "a square matrix"),
        ("graph", {"algorithm": "triangles", "matrix": "m-0123456789abcdef"}, 404, "m"),
        ("graph", {"algorithm": "triangles"}, 400, "parameters.matrix"),
        (
            "graph",
            {"algorithm": "pagerank", "matrix": "C", "damping": 1.5},
            422,
            "0 to 1 is right",
        ),
        (
            "graph",
            {"algorithm": "pagerank", "matrix": "C", "tol": "x"},
            400,
            "must be a number",
        ),
        ("eigs", {"matrix": "P"}, 400, "parameters.k is None, but must be a whole"),
        ("eigs", {"matrix": "P", "k": 6}, 422, "must be from 1 to 5"),
        ("eigs", {"matrix": "P", "k": True}, 400, "whole number"),
        ("eigs", {"matrix": "P", "k": 1, "which": "LM"}, 422, "one of largest, small"),
        ("eigs", {"matrix": "W", "k": 1}, 422, "square"),
        ("eigs", {"matrix": "P", "k": 1, "maxiter": 0}, 422, "from 1 to"),
    ],
)
def test_what_could_not_run_is_refused(
    real: httpx2.Client,
    ids: dict[str, str],
    kind: str,
    params: dict[str, Any],
    code: int,
    text: str,
) -> None:
    given = {k: ids.get(v, v) if k == "matrix" else v for k, v in params.items()}

    answer = send(real, "/v1/jobs", {}, given, kind=kind)

    assert answer.status_code == code, answer.text
    assert text in answer.json()["error"]


def test_inputs_are_refused(real: httpx2.Client, ids: dict[str, str]) -> None:
    given = {"algorithm": "components", "matrix": ids["C"]}

    answer = send(real, "/v1/jobs", {"b": np.ones(4)}, given, kind="graph")

    assert answer.status_code == 422
    assert "takes no inputs; got ['b']" in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "params", "text"),
    [
        ("eigs", {"matrix": "C", "k": 1}, "the matrix is not symmetric"),
        ("graph", {"matrix": "N", "algorithm": "pagerank"}, "not negative; entry"),
    ],
)
def test_what_only_the_entries_tell_fails_with_a_reason(
    real: httpx2.Client, ids: dict[str, str], kind: str, params: Any, text: str
) -> None:
    job = ended(real, kind, {}, **params | {"matrix": ids[params["matrix"]]})

    assert job["status"] == "failed"
    assert text in job["error"]


def test_each_algorithm_can_be_asked_for() -> None:
    assert len(ALGORITHMS) == len(courses)
