"""Every request that the description shows does what it is shown for."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.web.wire import put_matrix

from nnz_service.web.examples import CHAIN, JOBS, MATRIX, OPS

A = scipy.sparse.csr_array(np.array([[4.0, 1, 0], [1, 5, 2], [0, 2, 6]]))


@pytest.fixture(scope="module")
def a(real: httpx2.Client) -> str:
    return put_matrix(real, A)


def sent(http: httpx2.Client, path: str, example: Any, a: str) -> httpx2.Response:
    return http.post(path, content=json.dumps(example).replace(MATRIX, a))


def shown(http: httpx2.Client, path: str) -> dict[str, Any]:
    spec = http.get("/openapi.json").json()["paths"][path]["post"]
    content = spec["requestBody"]["content"]["application/json"]
    return {name: one["value"] for name, one in content["examples"].items()}


@pytest.mark.parametrize("op", OPS)
def test_operations(real: httpx2.Client, a: str, op: str) -> None:
    answer = sent(real, f"/v1/ops/{op}", shown(real, "/v1/ops/{op}")[op], a)

    assert answer.is_success, answer.text


def test_a_chain(real: httpx2.Client, a: str) -> None:
    assert shown(real, "/v1/ops") == {"chain": CHAIN}
    assert sent(real, "/v1/ops", CHAIN, a).is_success


@pytest.mark.parametrize("kind", JOBS)
def test_jobs(real: httpx2.Client, a: str, kind: str) -> None:
    answer = sent(real, "/v1/jobs", shown(real, "/v1/jobs")[kind], a)

    assert answer.status_code == 202, answer.text
    job = real.get(f"/v1/jobs/{answer.json()['id']}?wait=60").json()
    assert (job["kind"], job["status"]) == (kind, "succeeded"), job
    assert job["result"].get("status") in {"converged", "optimal", None}


def test_the_page_shows_them(real: httpx2.Client) -> None:
    """With their names; and what is a table in a description is one there."""
    page = real.get("/docs").text

    for name, example in (JOBS | OPS).items():
        assert f"<p><code>{name}</code></p>" in page
        text = json.dumps(example, indent=1).replace("<", "&lt;")
        assert text.replace('"', "&quot;") in page
    assert "<tr><td><code>minres</code><td>symmetric<td>" in page
    assert "|---" not in page
