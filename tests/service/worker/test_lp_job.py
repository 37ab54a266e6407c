"""Linear programs as jobs: what waits elsewhere holds no device, and ends with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnz_kernels.convert import csr_from_dense
from nnz_kernels.formats import Csr
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import ImpossibleError, InvalidInputError
from nnz_service.worker.lp_job import FirstOrderJob, HighsJob, make_lp
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.solvers import Outside
from nnz_service.worker.toolbox import Toolbox

SERVABLE = MatrixServable(MatrixOperator(csr_from_dense(np.ones((1, 2)))))
INPUTS = {"c": np.array([1.0, 2.0]), "lc": np.array([4.0]), "uv": np.array([3.0, 9.0])}


def make(inputs: dict[str, Any] | None = None, state: Any = None, **params: Any) -> Any:
    given = INPUTS if inputs is None else inputs
    return make_lp({"matrix": "m"} | params, given, lambda _: SERVABLE, state)


def test_the_method_is_chosen_by_what_it_can_do() -> None:
    assert isinstance(make(), HighsJob)
    assert isinstance(make(method="pdhg"), FirstOrderJob)
    warm = INPUTS | {"x0": np.zeros(2)}
    assert isinstance(make(warm), FirstOrderJob)
    assert isinstance(make(polish=1e-9), FirstOrderJob)
    with pytest.raises(InvalidInputError, match="x0, y0 and polish are for the method"):
        make(warm, method="highs")


def test_columns_cost_nothing_until_vectors_have_them() -> None:
    """A matrix of three entries is stored in a few bytes, however wide it is."""
    indptr, indices = np.array([0, 3]), np.array([0, 7, 2**40])
    wide = Csr(indptr, indices, np.ones(3), (1, 2**41))
    servable = MatrixServable(MatrixOperator(wide))
    for method in ("pdhg", "highs", "auto"):
        with pytest.raises(ImpossibleError, match=f"{2**41} columns take about"):
            make_lp({"matrix": "m", "method": method}, {}, lambda _: servable, None)


def test_what_waits_for_highs_works_outside() -> None:
    highs, pdhg, alone = (
        make(),
        make(method="pdhg"),
        make(method="pdhg", presolve=False),
    )
    for job in (highs, pdhg, alone):
        assert isinstance(job, Outside)
    assert highs.outside
    assert pdhg.outside
    assert not alone.outside


def test_presolve_ends_and_iterations_hold_the_device() -> None:
    job = make(method="pdhg")
    seen = set()
    while not job.step(0.05):
        seen.add(job.outside)
    result, arrays = job.result()
    assert (result["status"], result["method"]) == ("optimal", "pdhg")
    assert seen == {True, False}
    np.testing.assert_allclose(arrays["x"], [3, 1], atol=1e-6)


def test_the_memory_of_highs_is_the_workers() -> None:
    toolbox = Toolbox(lp_bytes=1 << 40)
    jobs = [
        toolbox.solver(
            "lp", {"matrix": "m", "method": m}, INPUTS, lambda _: SERVABLE, None
        )
        for m in ("highs", "pdhg")
    ]
    for job in jobs:
        assert isinstance(job, HighsJob | FirstOrderJob)
        assert job._solve._memory == 1 << 40


def test_closing_ends_the_process() -> None:
    job = make()
    assert not job.step(0.001)
    process = job._solve._run.process
    job.close()
    assert process.returncode is not None
    assert job.progress()["seconds"] == job.state()["seconds"] > 0


def test_a_first_order_job_goes_on_from_its_state() -> None:
    asked = {"method": "pdhg", "eps_rel": 1e-10, "eps_abs": 1e-10, "presolve": False}
    job = make(**asked)
    while not job.step(0.0):
        state = {name: np.array(x) for name, x in job.state().items()}
        job = make(state=state, **asked)
    result, arrays = job.result()
    assert result["status"] == "optimal"
    np.testing.assert_allclose(arrays["x"], [3, 1], rtol=1e-8)


def test_a_polished_job_goes_on_from_its_state() -> None:
    asked = {"eps_rel": 0.1, "eps_abs": 0.0, "presolve": False, "polish": 1e-12}
    job = make(**asked)
    while not job.step(0.0):
        state = {name: np.array(x) for name, x in job.state().items()}
        job = make(state=state, **asked)
    result, _ = job.result()
    assert (result["status"], result["polish"]["reached"]) == ("optimal", True)
    assert result["relative_primal_residual"] <= 1e-12


def test_costs_are_needed() -> None:
    with pytest.raises(InvalidInputError, match="needs the costs as the input c"):
        make({})
