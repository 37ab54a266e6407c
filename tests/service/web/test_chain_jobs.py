"""Chains that take too long for a request, as jobs over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.web.wire import put_matrix, read, send

DENSE = np.array([[2.0, 0, 1], [0, 3, 0], [4, 0, 5]])


@pytest.fixture(scope="module")
def a(real: httpx2.Client) -> str:
    return put_matrix(real, scipy.sparse.csr_array(DENSE))


def ended(http: httpx2.Client, *steps: Any, **more: Any) -> dict[str, Any]:
    answer = send(
        http, "/v1/jobs", more.pop("tensors", {}), more,
        kind="chain", steps=list(steps),
    )  # fmt: skip
    assert answer.status_code == 202, answer.text
    path = f"/v1/jobs/{answer.json()['id']}"
    found: dict[str, Any] = http.get(path, params={"wait": 30}).json()
    return found


def test_they_give_what_the_request_gives(real: httpx2.Client, a: str) -> None:
    """Twice the same matrix, and stored once."""
    steps = [
        {"as": "at", "op": "transpose", "matrix": a},
        {"as": "c", "op": "spgemm", "matrix": "at", "other": a, "keep": True},
        {"op": "spmv", "matrix": "c", "inputs": {"x": "x"}},
    ]
    tensors = {"x": np.array([1.0, 2, 3])}
    now = send(
        real, "/v1/ops", tensors, {"binary_data_output": False}, steps=steps
    ).json()

    jobs = [ended(real, *steps, tensors=tensors) for _ in range(2)]

    for job in jobs:
        assert job["status"] == "succeeded", job["error"]
        assert job["result"]["op"] == "chain"
        made = job["result"]["matrices"]["c"]["id"]
        assert made == now["matrices"]["c"]["id"]
        assert (job["progress"]["step"], job["progress"]["of"]) == ("step3", 3)
        y = read(real.get(f"/v1/jobs/{job['id']}/result"))["step3"]
        assert y.tolist() == now["outputs"][0]["data"]


def test_a_step_that_fails_is_named(real: httpx2.Client, a: str) -> None:
    job = ended(
        real,
        {"as": "row", "op": "submatrix", "matrix": a, "rows": [0, 1, 1]},
        {"op": "spgemm", "matrix": "row", "other": "row"},
    )

    assert job["status"] == "failed"
    assert job["error"].startswith("step 'step2' (spgemm): ")


@pytest.mark.parametrize(
    ("steps", "params", "code", "text"),
    [
        (None, {}, 400, "'steps' must be a list of 1 to 64 operations"),
        ([{"op": "solve"}], {}, 400, "there is no op 'solve' for a chain"),
        ([{"op": "norm", "matrix": "m-0123456789abcdef"}], {}, 404, "m-01234567"),
        ([{"op": "norm", "matrix": "A"}], {"alpha": 2}, 400, "no parameter 'al"),
        (
            [{"op": "submatrix", "matrix": "A", "rows": [0] * 40_000}],
            {}, 413, "the limit is 65536; send lists",
        ),
    ],
)  # fmt: skip
def test_refusals(
    real: httpx2.Client,
    a: str,
    steps: Any,
    params: dict[str, Any],
    code: int,
    text: str,
) -> None:
    """Before anything is written down."""
    for row in steps or []:
        row |= {"matrix": a} if row.get("matrix") == "A" else {}
    fields = {} if steps is None else {"steps": steps}

    answer = send(real, "/v1/jobs", {}, params, kind="chain", **fields)

    assert answer.status_code == code, answer.text
    assert text in answer.json()["error"]
