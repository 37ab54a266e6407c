"""Linear programs through both clients, over a server inside this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import nnz

MPS = """NAME t
ROWS
 N cost
 G need
COLUMNS
 x cost 1 need 1
 y cost 2 need 1
RHS
 rhs need 4
BOUNDS
 UP bnd x 3
ENDATA
"""


@pytest.fixture(scope="module", params=["sync", "async"])
def client(request: pytest.FixtureRequest, blocking: Any) -> Iterator[Any]:
    if request.param == "sync":
        with nnz.Client.local(threads=1) as own:
            yield own
        return
    with asyncio.Runner() as runner:
        inner = nnz.AsyncClient.local(threads=1)
        yield blocking(inner, runner)
        runner.run(inner.close())


def test_a_file_is_solved_by_its_path(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.mps"
    path.write_text(MPS)

    found = client.solve_lp(path, timeout=60)

    assert isinstance(found, nnz.LpResult)
    assert (found.status, found.optimal) == ("optimal", True)
    assert found.objective == pytest.approx(5)
    np.testing.assert_allclose(found.x, [3, 1])
    np.testing.assert_allclose(found.y, [2])
    np.testing.assert_allclose(found.reduced_costs, [-1, 0])


def test_a_matrix_is_solved_with_vectors(client: Any) -> None:
    matrix = client.matrices.put(scipy.sparse.csr_array(np.ones((1, 2))))
    given = {"c": [1, 2], "lc": [4], "uv": [3, np.inf]}

    job = client.jobs.lp(matrix, method="pdhg", presolve=False, **given)
    found = job.result(timeout=60)

    assert (found.method, found.status) == ("pdhg", "optimal")
    assert found.objective == pytest.approx(5, rel=1e-5)
    assert found.summary["presolve"] is None
    again = client.jobs.lp(matrix, start=job, **given).result(timeout=60)
    assert (again.method, again.status) == ("pdhg", "optimal")
    assert again.iterations <= 40 < found.iterations
    assert not found.polished
    rough = client.jobs.lp(matrix, eps_rel=0.1, polish=1e-11, presolve=False, **given)
    fine = rough.result(timeout=60)
    assert fine.polished
    assert max(fine.relative_primal_residual, fine.relative_dual_residual) <= 1e-11
    assert fine.seconds > 0
    by_id = client.jobs.lp(matrix, start=job.id, **given)
    assert by_id.info.params["start"] == job.id
    nothing = client.jobs.lp(matrix, [1, 2], lc=[4], uv=[1, 1], method="highs")
    proof = nothing.result(timeout=60)
    assert proof.status == "infeasible"
    np.testing.assert_allclose(proof.ray, [1])
    with pytest.raises(ValueError, match=r"c has shape \(3,\); \(2,\) is right"):
        client.jobs.lp(matrix, [1, 2, 3])
