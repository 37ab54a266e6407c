"""Matrices with indices of 64 bits: each operation answers, or says what it takes."""

from __future__ import annotations

from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.web.wire import as_npz, put_matrix, read, send

from nnz_kernels.convert import csr_from_dense, csr_to_dense
from nnz_service.algebra import row_parts

COLUMNS = 2**41
PLACES = [(0, 5), (1, 2**31), (3, 2**40)]
VALUES = np.array([1.0, 2, 3])
NPZ = {"Content-Type": "application/x-npz"}


def wide(rows: int = 4, columns: int = COLUMNS) -> Any:
    at = tuple(np.array(PLACES).T)
    return scipy.sparse.coo_array((VALUES, at), shape=(rows, columns)).tocsr()


@pytest.fixture(scope="module")
def a(real: httpx2.Client) -> str:
    return put_matrix(real, wide())


def ask(
    http: httpx2.Client, op: str, inputs: dict[str, Any] | None = None, **params: Any
) -> httpx2.Response:
    params["binary_data_output"] = True
    return send(http, f"/v1/ops/{op}", inputs or {}, params)


def test_it_is_described_and_drawn(real: httpx2.Client, a: str) -> None:
    found = real.get(f"/v1/matrices/{a}").json()

    assert (found["shape"], found["nnz"]) == ([4, COLUMNS], 3)
    assert found["index_dtype"] == "INT64"
    assert found["bandwidth"] == {"lower": 0, "upper": 2**40 - 3}
    assert found["dense_bytes"] == 4 * COLUMNS * 8
    assert real.get(f"/v1/matrices/{a}/spy").content.startswith(b"\x89PNG")


def test_sizes_that_no_integer_holds(real: httpx2.Client) -> None:
    """Without sparsity it had more than 2**63 bytes, which JSON cannot say."""
    key = put_matrix(real, wide(4000, 2**53))

    assert real.get(f"/v1/matrices/{key}").json()["dense_bytes"] is None
    assert key in real.get("/v1/matrices").text


def test_rows_are_paid_for(real: httpx2.Client) -> None:
    """A row takes memory even where it is empty, so there is a bound on them."""
    a = scipy.sparse.coo_array((VALUES, tuple(np.array(PLACES).T)), (10**14, 10**14))

    answer = real.post("/v1/matrices", content=as_npz(a), headers=NPZ)

    assert answer.status_code == 413
    assert "takes 800000000000" in answer.json()["error"]


def test_what_takes_no_column_is_answered(real: httpx2.Client, a: str) -> None:
    def numbers(op: str, **params: Any) -> list[float]:
        found: list[float] = next(
            iter(read(ask(real, op, matrix=a, **params)).values())
        ).tolist()
        return found

    assert numbers("sums", axis=1) == [1, 2, 0, 3]
    assert numbers("diagonal") == [0, 0, 0, 0]
    assert numbers("norm", kind="max") == [3]


def test_matrices_of_it(real: httpx2.Client, a: str) -> None:
    """Sums, products from the left and rows of it are as wide."""
    turn = put_matrix(real, scipy.sparse.csr_array(np.eye(4)[::-1].copy()))
    double = ask(real, "add", matrix=a, other=a).json()["matrix"]
    product = ask(real, "spgemm", matrix=turn, other=a).json()["matrix"]
    part = ask(real, "submatrix", matrix=a, rows=[1, 4]).json()["matrix"]
    scaled = ask(real, "scale", {"rows": np.ones(4)}, matrix=a).json()["matrix"]

    for made, rows in ((double, 4), (product, 4), (part, 3), (scaled, 4)):
        assert made["shape"] == [rows, COLUMNS]
        assert made["index_dtype"] == "INT64"
    assert part["nnz"] == 2
    sums = read(ask(real, "sums", matrix=product["id"]))["sums"]
    assert sums.tolist() == [3, 0, 2, 1]
    assert scaled["id"] == a


@pytest.mark.parametrize(
    ("op", "inputs", "params", "code", "says"),
    [
        ("spmv", {"x": np.ones(3)}, {}, 422, f"must be [{COLUMNS}]"),
        ("spmv", {"x": np.ones(4)}, {"transpose": True}, 422, f"{8 * COLUMNS} bytes"),
        ("transpose", {}, {}, 413, f"{COLUMNS} columns"),
        ("submatrix", {}, {"columns": [0, 9]}, 413, f"{COLUMNS} columns"),
        ("sums", {}, {"axis": 0}, 413, f"{8 * COLUMNS} bytes"),
        ("norm", {}, {"kind": "1"}, 413, f"{COLUMNS} columns"),
    ],
)
def test_what_takes_every_column_is_refused(
    real: httpx2.Client,
    a: str,
    op: str,
    inputs: dict[str, Any],
    params: dict[str, Any],
    code: int,
    says: str,
) -> None:
    """With the numbers, before anything is allocated."""
    answer = ask(real, op, inputs, matrix=a, **params)

    assert answer.status_code == code, answer.text
    assert says in answer.json()["error"]


def test_entries_that_32_bits_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a product become one with wider indices, and the numbers stay."""
    parts = [csr_from_dense(np.eye(3)), csr_from_dense(2 * np.eye(3))]
    monkeypatch.setattr(row_parts, "_MOST_32", 5)

    found = row_parts.stacked(parts)

    found.check()
    assert found.indices.dtype == found.indptr.dtype == np.int64
    np.testing.assert_array_equal(
        csr_to_dense(found), np.vstack([np.eye(3), 2 * np.eye(3)])
    )
