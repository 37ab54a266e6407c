"""Feasibility polishing: by hand, around solves, interrupted, and where it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from service.algebra.lp.programs import INF, INFEASIBLE, WYNDOR, loop, program

from nnz_service.algebra.lp import polished
from nnz_service.algebra.lp.model import LinearProgram
from nnz_service.algebra.lp.mps import read_mps
from nnz_service.algebra.lp.outcome import Judge, LpOutcome
from nnz_service.algebra.lp.pdhg import LpProgress
from nnz_service.algebra.lp.polished import Polished
from nnz_service.algebra.lp.polishing import Polishing
from nnz_service.algebra.lp.settings import LpSettings
from nnz_service.errors import InvalidInputError

#: A gap of a thousandth, residuals of next to nothing.
ROUGH = LpSettings("pdhg", 1e-3, 1e-3, presolve=False, polish=1e-10)

#: With presolve, and the processes that it takes, or without.
BOTH = [False, pytest.param(True, marks=pytest.mark.slow)]


def finish(solve: Polished) -> LpOutcome:
    out = solve.step()
    assert isinstance(out, LpOutcome), out
    return out


def is_feasible(lp: LinearProgram, out: LpOutcome, tolerance: float) -> bool:
    """Whether x and y are, measured anew."""
    kkt = Judge(lp, LpSettings()).measure(out.x, out.y, out.reduced_costs)
    worst = max(kkt.relative_primal_residual, kkt.relative_dual_residual)
    return worst <= tolerance


class TestARound:
    def test_by_hand(self) -> None:
        """x goes to the nearest point of x + y = 1, y to below 1, where costs are."""
        lp = program([[1, 1]], [1, 2], [1], [1])
        whole = Polishing(lp, np.zeros(2), np.array([3.0]), 1e-12, 1000)
        assert whole.step()
        assert whole.failed is None
        np.testing.assert_allclose(whole.x, [0.5, 0.5], atol=1e-11)
        assert 0.9 <= whole.y[0] <= 1

    def test_what_is_feasible_stays(self) -> None:
        x, y = np.array([2.0, 6]), np.array([0, -1.5, -1])
        whole = Polishing(WYNDOR, x, y, 1e-12, 1000)
        assert whole.step()
        np.testing.assert_allclose(whole.x, x, atol=1e-12)
        np.testing.assert_allclose(whole.y, y, atol=1e-12)

    def test_a_side_without_a_solution_fails(self) -> None:
        whole = Polishing(INFEASIBLE, np.zeros(2), np.zeros(2), 1e-9, 200)
        assert whole.step()
        assert (whole.failed, whole.spent) == ("primal", {"primal": 200, "dual": 0})
        free = program([[1, 0]], [0, 1], [0], [1], lv=[0, -INF])  # r has no bound
        whole = Polishing(free, np.zeros(2), np.zeros(1), 1e-9, 200)
        assert whole.step()
        assert whole.failed == "dual"


class TestAnswers:
    @pytest.mark.parametrize("presolve", BOTH)
    def test_a_rough_solution_is_made_feasible(self, presolve: bool) -> None:
        settings = replace(ROUGH, presolve=presolve)
        plain = finish(Polished(loop(), replace(settings, polish=0.5)))
        out = finish(Polished(loop(), settings))

        assert out.status == "optimal"
        assert is_feasible(loop(), out, 1e-10)
        assert not is_feasible(loop(), plain, 1e-10)
        assert out.kkt is not None
        assert out.kkt.relative_gap <= 2e-3
        told = out.extra["polish"]
        assert (told["tolerance"], told["reached"]) == (1e-10, True)
        assert 0 < told["primal_iterations"] + told["dual_iterations"] < out.iterations
        assert "residuals are at most 1e-10" in out.message

    @pytest.mark.slow
    def test_netlib(self, data_dir: Path) -> None:
        lp = read_mps(data_dir / "lp" / "netlib" / "adlittle.mps.gz")
        out = finish(Polished(lp, ROUGH))
        assert out.extra["polish"]["reached"]
        assert is_feasible(lp, out, 1e-10)
        assert out.kkt is not None
        np.testing.assert_allclose(out.kkt.objective, 225494.96316, rtol=1e-2)

    def test_nothing_is_done_where_nothing_is_to_do(self) -> None:
        """It starts from the exact solution."""
        x0, y0 = np.array([2.0, 6]), np.array([0, -1.5, -1])
        out = finish(Polished(WYNDOR, ROUGH, x0, y0))
        told = out.extra["polish"]
        assert (told["reached"], told["rounds"]) == (True, 0)

    def test_what_has_no_solution_is_not_polished(self) -> None:
        out = finish(Polished(INFEASIBLE, ROUGH))
        assert out.status == "infeasible"
        assert out.ray is not None
        assert out.extra["polish"]["rounds"] == 0


class TestWhereItFails:
    def test_a_round_in_vain_is_followed_by_another(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The iterations go on to smaller tolerances first; all of it is counted."""
        monkeypatch.setattr(polished, "LEAST", 0)
        settings = replace(ROUGH, polish=1e-13)
        out = finish(Polished(loop(), settings))
        assert out.extra["polish"]["rounds"] > 1
        assert out.status == "optimal"

    def test_a_limit_leaves_what_was_there(self) -> None:
        """It is within the tolerances, and not called more feasible than it is."""
        plain = finish(Polished(loop(), replace(ROUGH, polish=0.5)))
        limit = plain.iterations + 2
        out = finish(Polished(loop(), replace(ROUGH, max_iterations=limit)))
        assert out.status == plain.status
        assert out.iterations == limit
        assert not out.extra["polish"]["reached"]
        assert "polishing did not reach 1e-10" in out.message
        assert not is_feasible(loop(), out, 1e-10)

    def test_time_ends_it(self) -> None:
        now = iter(np.arange(0.0, 1e6, 0.01))
        settings = replace(ROUGH, polish=1e-14, time_limit=10.0)
        solve = Polished(loop(), settings, clock=lambda: next(now))
        out = solve.step(seconds=1e9)
        while not isinstance(out, LpOutcome):
            out = solve.step(seconds=1.0)
        assert out.status in ("optimal", "optimal_relative_only")

    @pytest.mark.parametrize("wrong", [0.0, 1.0, float("nan"), True, "1e-9"])
    def test_wrong_tolerances_are_refused(self, wrong: float) -> None:
        with pytest.raises(InvalidInputError, match="polish is"):
            LpSettings(polish=wrong).check()


class TestGoingOn:
    @pytest.mark.parametrize("presolve", BOTH)
    def test_bit_for_bit(self, presolve: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stopped in the iterations, in both sides of rounds, and between rounds."""
        monkeypatch.setattr(polished, "LEAST", 0)
        lp, settings = loop(), replace(ROUGH, presolve=presolve, polish=1e-13)
        whole = finish(Polished(lp, settings))
        solve, seen = Polished(lp, settings), set()
        while isinstance(
            solve.step(seconds=0.0 if not solve.outside else 1.0), LpProgress
        ):
            now = (
                solve._rounds,
                solve._is_waiting,
                solve._round and solve._round._side,
            )
            if now in seen:
                continue
            seen.add(now)
            saved = {name: np.asarray(x) for name, x in solve.state().items()}
            solve.close()
            solve = Polished.restore(lp, settings, saved)
        out = finish(solve)

        assert {side for _, _, side in seen} == {None, "primal", "dual"}
        assert whole.extra["polish"]["rounds"] > 1
        assert out.iterations == whole.iterations
        for name in ("x", "y", "reduced_costs"):
            np.testing.assert_array_equal(getattr(out, name), getattr(whole, name))
        for found in (out, whole):
            del found.extra["seconds"]
        assert (out.extra, out.status, out.kkt) == (
            whole.extra,
            whole.status,
            whole.kkt,
        )
