"""Operations as jobs: by runs of rows, across restarts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

from nnz_kernels.backends import Backend, load_sparse
from nnz_kernels.convert import csr_from_scipy
from nnz_kernels.formats import Csr
from nnz_service.algebra import sparse_ops
from nnz_service.algebra.operands import Operands
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.algebra.row_parts import BY_ROWS
from nnz_service.errors import TooLargeError
from nnz_service.worker import op_job
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.op_job import OpJob
from nnz_service.worker.solvers import SOLVERS, Making

OPS = load_sparse(Backend.REFERENCE)


def matrix(rows: int, columns: int, seed: int) -> Csr[Any]:
    found = scipy.sparse.random_array(
        (rows, columns), density=0.3, rng=np.random.default_rng(seed), format="csr"
    )
    return csr_from_scipy(found)


def operands(op: str, rows: int = 23) -> Operands:
    rng = np.random.default_rng(1)
    tensors = {
        "scale": {"rows": rng.random(rows), "columns": rng.random(17)},
        "sddmm": {"x": rng.random((rows, 3)), "y": rng.random((17, 3))},
    }.get(op, {})
    other = {"spgemm": matrix(17, 11, 2), "add": matrix(rows, 17, 3)}.get(op)
    params = {"alpha": 0.5, "beta": 3} if op == "add" else {}
    return Operands(matrix(rows, 17, 4), other, tensors, params, OPS, 1)


def arrays(a: Csr[Any]) -> list[bytes]:
    return [x.tobytes() for x in (a.indptr, a.indices, a.data)]


@pytest.mark.parametrize("op", sorted(BY_ROWS))
@pytest.mark.parametrize("rows", [0, 1, 23])
def test_parts_have_the_bits_of_the_whole(op: str, rows: int) -> None:
    given = operands(op, rows)
    whole = sparse_ops.compute(op, given)
    job = OpJob(op, given, count=7)
    steps = 1

    while not job.step(0.0):
        steps += 1

    assert isinstance(whole, Csr)
    assert steps == min(max(rows, 1), 7)
    assert job.matrix.shape == whole.shape
    assert arrays(job.matrix) == arrays(whole)
    assert job.progress()["rows"] == job.progress()["of"] == rows


def test_a_restart_goes_on_with_the_next_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, and no row is computed twice."""
    a, b = matrix(23, 17, 5), matrix(17, 11, 6)
    held = {
        "m-a": MatrixServable(MatrixOperator(a, Backend.REFERENCE)),
        "m-b": MatrixServable(MatrixOperator(b, Backend.REFERENCE)),
    }
    params = {"op": "spgemm", "matrix": "m-a", "other": "m-b", "name": "ab"}
    monkeypatch.setattr(op_job, "PART", 1e-7)

    def make(state: Any) -> OpJob:
        found = SOLVERS["op"](params, {}, held.__getitem__, state)
        assert isinstance(found, OpJob)
        return found

    first = make(None)
    for _ in range(3):
        assert not first.step(0.0)
    second = make(make(first.state()).state())
    again = make(make(None).state())
    began = second.progress()["rows"]
    while not second.step(0.0):
        pass

    assert isinstance(second, Making)
    assert (began, again.progress()["rows"]) == (first.progress()["rows"], 0)
    assert second.label == "ab"
    assert arrays(second.matrix) == arrays(OPS.spgemm(a, b))
    assert second.result() == ({"op": "spgemm"}, {})


def test_what_does_not_fit_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    admit = sparse_ops.admit
    monkeypatch.setattr(
        sparse_ops, "admit", lambda op, x, **more: admit(op, x, 100, **more)
    )

    with pytest.raises(TooLargeError, match="the limit is 100 bytes"):
        OpJob("add", operands("add"))


def test_a_product_that_does_not_fit_ends_where_it_passes_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its entries are not counted before: that alone may take minutes."""
    given = operands("spgemm")
    counted = "product_counts"
    monkeypatch.setattr(given.kernels, counted, None)
    monkeypatch.setattr(op_job, "MAX_RESULT", 100)
    job = OpJob("spgemm", given, count=7)

    with pytest.raises(TooLargeError, match=r"first \d+ of \d+ rows .* 100 bytes"):
        job.step(60.0)
