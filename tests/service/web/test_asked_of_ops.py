"""What may be asked of an operation beside its parameters: the cost, and outputs."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.web.wire import put_matrix, tensor

DENSE = np.array([[2.0, 0, 1], [0, 3, 0], [4, 0, 5]])


@pytest.fixture(scope="module")
def a(real: httpx2.Client) -> str:
    return put_matrix(real, scipy.sparse.csr_array(DENSE))


class TestPreflightInTheQuery:
    @pytest.mark.parametrize("yes", ["true", "1", "on", "YES"])
    def test_takes_every_boolean(self, real: httpx2.Client, a: str, yes: str) -> None:
        """As it is declared; an operation may be asked for the exact number, too."""
        one = {"parameters": {"matrix": a, "other": a}}
        step = {"op": "spgemm", "matrix": a, "other": a}
        told = real.post(f"/v1/ops/spgemm?preflight={yes}", json=one)
        chain = real.post(f"/v1/ops?preflight={yes}", json={"steps": [step]})
        exact = real.post("/v1/ops/spgemm?preflight=exact", json=one)

        assert told.json()["preflight"]["output_nnz_exact"] is False
        assert chain.json()["preflight"]["steps"][0]["output_nnz"] == 7
        assert exact.json()["preflight"]["output_nnz_exact"] is True

    def test_goes_before_the_body(self, real: httpx2.Client, a: str) -> None:
        body = {"parameters": {"matrix": a, "preflight": True}}
        for no in ("false", "0", "off"):
            done = real.post(f"/v1/ops/norm?preflight={no}", json=body)
            assert done.json()["outputs"][0]["data"] == pytest.approx([np.sqrt(55)])

    def test_takes_nothing_else(self, real: httpx2.Client, a: str) -> None:
        step = {"op": "norm", "matrix": a}
        x = {"parameters": {"matrix": a}, "inputs": [tensor("x", [1.0, 2, 3])]}
        for path, body, text in (
            ("/norm?preflight=maybe", {"parameters": {"matrix": a}}, "preflight"),
            ("?preflight=maybe", {"steps": [step]}, "preflight"),
            ("?preflight=exact", {"steps": [step]}, "preflight"),
            ("/spmv?preflight=1", x, "spmv has no preflight"),
        ):
            answer = real.post(f"/v1/ops{path}", json=body)
            assert answer.status_code == 400, answer.text
            assert text in answer.json()["error"]


@pytest.mark.parametrize(
    ("op", "inputs", "right"),
    [
        ("spmv", [tensor("x", [1.0, 2, 3])], ["y"]),
        ("spmm", [tensor("x", [[1.0], [2], [3]])], ["y"]),
        ("triangular_solve", [tensor("b", [1.0, 2, 3])], ["x"]),
        ("norm", [], ["norm"]),
        ("sums", [], ["sums"]),
        ("diagonal", [], ["diagonal"]),
        ("transpose", [], []),
        ("scale", [], []),
    ],
)
def test_outputs_that_an_operation_does_not_have(
    real: httpx2.Client, a: str, op: str, inputs: list[Any], right: list[str]
) -> None:
    """They are refused, and those that there are named and taken."""
    body = {"parameters": {"matrix": a}, "inputs": inputs}
    rows = [{"name": name, "parameters": {"binary_data": False}} for name in right]

    done = real.post(f"/v1/ops/{op}", json={**body, "outputs": rows})
    wrong = real.post(f"/v1/ops/{op}", json={**body, "outputs": [{"name": "nope"}]})

    assert done.status_code in (200, 201), done.text
    assert [row["name"] for row in done.json().get("outputs", [])] == right
    assert wrong.status_code == 422
    there = ", ".join(right) or "none: its result is a matrix"
    assert wrong.json()["error"] == f"{op} has no output 'nope'; there are {there}"


def test_outputs_of_sparse_vectors(real: httpx2.Client) -> None:
    pair = [
        tensor(f"{name}.{part}", [1], datatype)
        for name in "uv"
        for part, datatype in (("indices", "INT64"), ("values", "FP64"))
    ]
    for op, right in (("axpy", ["w.indices", "w.values"]), ("dot", ["dot"])):
        body = {"parameters": {"r": 2.0} if op == "axpy" else {}, "inputs": pair}
        rows = [{"name": name} for name in right]
        done = real.post(f"/v1/ops/{op}", json={**body, "outputs": rows})
        wrong = real.post(f"/v1/ops/{op}", json={**body, "outputs": [{"name": "y"}]})

        assert [row["name"] for row in done.json()["outputs"]] == right
        assert wrong.status_code == 422
        assert f"there are {', '.join(right)}" in wrong.json()["error"]


def test_one_of_two_outputs(real: httpx2.Client) -> None:
    """What is not named does not go out."""
    pair = [
        tensor(f"{name}.{part}", [1], datatype)
        for name in "uv"
        for part, datatype in (("indices", "INT64"), ("values", "FP64"))
    ]
    body = {"parameters": {"r": 2.0}, "inputs": pair}
    for names in (["w.values"], ["w.values", "w.indices"]):
        rows = [{"name": name} for name in names]
        done = real.post("/v1/ops/axpy", json={**body, "outputs": rows}).json()
        assert [row["name"] for row in done["outputs"]] == names
        assert done["outputs"][0]["data"] == [3.0]
