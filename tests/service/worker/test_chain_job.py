"""Chains as jobs: step by step, across restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from nnz_kernels.backends import Backend
from nnz_kernels.convert import csr_from_scipy, csr_to_scipy
from nnz_kernels.formats import Csr
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import ImpossibleError, NotFoundError, TooLargeError
from nnz_service.repository import BlobStore, bundles
from nnz_service.worker import op_job, steps
from nnz_service.worker.chain_job import ChainJob
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.solvers import SOLVERS, MakingSeveral

A, B = "m-000000000000000a", "m-000000000000000b"


def matrix(rows: int, columns: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return scipy.sparse.random_array(
        (rows, columns), density=0.3, rng=rng, format="csr"
    )


STORED = {A: matrix(23, 17, 1), B: matrix(17, 23, 2)}


def find(name: str) -> Any:
    if name not in STORED:
        raise NotFoundError(f"there is no {name}")
    a = csr_from_scipy(STORED[name])
    return MatrixServable(MatrixOperator(a, Backend.REFERENCE, 1))


def step(name: str, op: str, *matrices: str, keep: bool = False, **more: Any) -> Any:
    named = dict(zip(("matrix", "other"), matrices, strict=False))
    inputs = more.pop("inputs", {})
    row = {"as": name, "op": op, "inputs": inputs, "params": more, "keep": keep}
    return row | named


STEPS = [
    step("p", "spgemm", A, B),
    step("t", "transpose", "p"),
    step("s", "add", "p", "t", keep=True, beta=-2) | {"name": "all"},
    step("d", "diagonal", "s"),
    step("y", "spmv", "s", keep=True, inputs={"x": "d"}),
    step("q", "spgemm", "s", "p", keep=True),
]


def job(state: Any = None, rows: Any = STEPS, find: Any = find) -> ChainJob:
    made = SOLVERS["chain"]({"steps": rows}, {}, find, state)
    assert isinstance(made, ChainJob)
    return made


def bits(made: ChainJob) -> dict[str, Any]:
    arrays = {name: x.tobytes() for name, x in made.result()[1].items()}
    for name, (label, a) in made.matrices.items():
        parts = (a.indptr, a.indices, a.data)
        arrays[name] = (label, a.shape, *(x.tobytes() for x in parts))
    return arrays


def test_the_results_are_right_and_named() -> None:
    made = job()
    while not made.step(60.0):
        pass

    p = (STORED[A] @ STORED[B]).toarray()
    s = p - 2 * p.T
    assert made.result()[0] == {"op": "chain"}
    assert isinstance(made, MakingSeveral)
    assert {n: label for n, (label, _) in made.matrices.items()} == {
        "s": "all", "q": None,
    }  # fmt: skip
    dense = {n: csr_to_scipy(a).toarray() for n, (_, a) in made.matrices.items()}
    np.testing.assert_allclose(dense["s"], s)
    np.testing.assert_allclose(dense["q"], s @ p)
    np.testing.assert_allclose(made.result()[1]["y"], s @ s.diagonal())


def test_a_checkpoint_on_disk_is_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After each slice another process goes on, to the same bits."""
    monkeypatch.setattr(op_job, "PART", 1e-9)  # every row is a run of its own
    blobs, whole, parts = BlobStore(tmp_path), job(), job()
    while not whole.step(60.0):
        pass
    seen = [parts.progress()]

    while not parts.step(0.0):
        seen.append(parts.progress())
        blob = bundles.save(blobs, parts.state())
        parts = job(bundles.load(blobs.path(blob.sha256)))

    assert bits(parts) == bits(whole)
    names = [row["step"] for row in seen]
    assert list(dict.fromkeys(names)) == ["p", "t", "s", "d", "y", "q"]
    assert names.count("p") > 5
    assert {(row["number"], row["of"]) for row in seen} == {(n, 6) for n in range(1, 7)}
    assert [row["rows"] for row in seen if row.get("rows")][:3] == [1, 2, 3]


def test_a_slice_does_one_step_at_most() -> None:
    made = job()
    slices = 1
    while not made.step(60.0):
        slices += 1

    assert slices == len(STEPS)


def test_matrices_that_were_used_may_go_meanwhile() -> None:
    """What was made of them is in the checkpoint."""
    made = job()
    for _ in range(2):
        made.step(60.0)

    def gone(name: str) -> Any:
        raise NotFoundError(f"there is no {name}")

    again = job(made.state(), find=gone)
    for each in (again, made):
        while not each.step(60.0):
            pass

    assert bits(again) == bits(made)
    with pytest.raises(NotFoundError):
        job(find=gone)


def test_a_step_that_cannot_be_done_is_named() -> None:
    made = job(rows=[step("p", "spgemm", A, B), step("z", "spgemm", A, "p", keep=True)])
    made.step(60.0)

    with pytest.raises(ImpossibleError, match=r"step 'z' \(spgemm\): .*"):
        made.step(60.0)


def test_results_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MAX_RESULT", 3000)
    made = job()

    with pytest.raises(TooLargeError, match=r"step 'p' .* the limit is 3000"):
        made.step(60.0)


def test_complex_numbers_go_through_a_checkpoint() -> None:
    square = scipy.sparse.csr_array(np.array([[1j, 2], [0, 1 - 1j]]))
    operator = MatrixOperator(csr_from_scipy(square), Backend.REFERENCE, 1)
    rows = [
        step("y", "spmv", A, inputs={"x": "x"}),
        step("z", "spmv", A, keep=True, inputs={"x": "y"}),
    ]
    x = {"x": np.array([[1.0, 0], [0, 1]])}

    def make(state: Any) -> ChainJob:
        return ChainJob(rows, x, lambda _: MatrixServable(operator), state)

    made = make(None)
    assert not made.step(60.0)
    made = make(made.state())
    assert made.step(60.0)

    found = made.result()[1]["z"]
    wanted = square @ (square @ np.array([1, 1j]))
    np.testing.assert_allclose(found[:, 0] + 1j * found[:, 1], wanted)
    assert isinstance(made.matrices, dict)
    assert not any(isinstance(a, Csr) for a in made.result()[1].values())
