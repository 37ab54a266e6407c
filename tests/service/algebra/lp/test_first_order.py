"""Presolve around first-order iterations: the way back, its ends, going on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.algebra.lp.programs import INFEASIBLE, UNBOUNDED, WYNDOR, loop

from nnz_service.algebra.lp import first_order, highs_process
from nnz_service.algebra.lp.first_order import FirstOrder
from nnz_service.algebra.lp.model import LinearProgram
from nnz_service.algebra.lp.mps import read_mps
from nnz_service.algebra.lp.outcome import LpOutcome
from nnz_service.algebra.lp.pdhg import LpProgress
from nnz_service.algebra.lp.settings import LpSettings
from nnz_service.errors import InvalidInputError

FINE = LpSettings(method="pdhg", eps_rel=1e-8, eps_abs=1e-8)


def finish(solve: FirstOrder) -> LpOutcome:
    out = solve.step()
    assert isinstance(out, LpOutcome), out
    return out


def wait(solve: FirstOrder) -> None:
    """Let presolve, or postsolve, come to its end."""
    assert solve.outside
    while solve.outside:
        assert isinstance(solve.step(seconds=1.0), LpProgress)


@pytest.fixture(scope="module")
def whole() -> LpOutcome:
    """The loop, solved without an interruption."""
    return finish(FirstOrder(loop(), FINE))


class TestAnswers:
    def test_presolve_alone_may_be_enough(self) -> None:
        """Nothing is left of it, and the multipliers come back all the same."""
        out = finish(FirstOrder(WYNDOR, FINE))
        assert (out.status, out.method) == ("optimal", "pdhg")
        np.testing.assert_allclose(out.x, [2, 6], atol=1e-7)
        np.testing.assert_allclose(out.y, [0, -1.5, -1], atol=1e-7)

    def test_with_and_without_it_the_answer_is_the_same(self, whole: LpOutcome) -> None:
        settings = LpSettings("pdhg", 1e-8, 1e-8, presolve=False)
        without = finish(FirstOrder(loop(), settings))

        assert (whole.status, without.status) == ("optimal", "optimal")
        assert 0 < whole.extra["presolve"]["columns"] < 24
        assert without.extra["presolve"] is None
        assert whole.kkt is not None
        assert without.kkt is not None
        np.testing.assert_allclose(
            whole.kkt.objective, without.kkt.objective, rtol=1e-6
        )

    def test_an_offset_loosens_nothing(self, whole: LpOutcome) -> None:
        """What presolve settles counts as before: the iterations are the same."""
        out = finish(FirstOrder(replace(loop(), offset=1e9), FINE))

        assert (out.status, out.iterations) == ("optimal", whole.iterations)
        assert out.x.tolist() == whole.x.tolist()
        assert out.kkt is not None
        assert whole.kkt is not None
        assert out.kkt.relative_gap == whole.kkt.relative_gap
        assert out.kkt.objective == pytest.approx(whole.kkt.objective + 1e9)
        assert "size" not in out.result()

    @pytest.mark.parametrize("name", ["adlittle", "kb2"])
    def test_netlib(self, data_dir: Path, name: str) -> None:
        optimum = {"adlittle": 225494.96316, "kb2": -1749.9001299}[name]
        lp = read_mps(data_dir / "lp" / "netlib" / f"{name}.mps.gz")
        out = finish(FirstOrder(lp, LpSettings("pdhg", 1e-6, 1e-6)))
        assert out.status == "optimal"
        assert out.kkt is not None
        assert out.kkt.worst <= 1e-6
        np.testing.assert_allclose(out.kkt.objective, optimum, rtol=1e-4)

    @pytest.mark.parametrize(
        ("lp", "status"), [(INFEASIBLE, "infeasible"), (UNBOUNDED, "unbounded")]
    )
    def test_a_proof_is_one_of_the_program_itself(
        self, lp: LinearProgram, status: str
    ) -> None:
        out = finish(FirstOrder(lp, FINE))
        assert out.status == status
        assert out.ray is not None
        assert any("without a proof" in note for note in out.notes)


class TestTheWayBack:
    def test_what_misses_the_tolerances_is_iterated_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A solution that postsolve spoils is not called optimal; the next one is."""
        spoilt: list[float] = []
        restored = FirstOrder._restored

        def spoil(self: FirstOrder, answer: Any) -> Any:
            if not spoilt:
                answer = answer | {"x": answer["x"] + 1e-3}
            spoilt.append(self._share)
            return restored(self, answer)

        monkeypatch.setattr(FirstOrder, "_restored", spoil)
        out = finish(FirstOrder(loop(), FINE))
        assert out.status == "optimal"
        assert spoilt == [1.0, first_order._LEAST]

    def test_a_limit_is_told_where_postsolve_loses_the_last_answer(
        self, whole: LpOutcome, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is left to iterate with, and it is not called optimal."""
        restored = FirstOrder._restored

        def spoil(self: FirstOrder, answer: Any) -> Any:
            return restored(self, answer | {"x": answer["x"] + 1e-3})

        monkeypatch.setattr(FirstOrder, "_restored", spoil)
        limit = LpSettings("pdhg", 1e-8, 1e-8, max_iterations=whole.iterations)
        out = finish(FirstOrder(loop(), limit))
        assert (out.status, out.iterations) == ("iteration_limit", whole.iterations)

    def test_a_limit_is_told_with_what_was_reached(self) -> None:
        settings = LpSettings("pdhg", 1e-12, 1e-12, max_iterations=40)
        out = finish(FirstOrder(loop(), settings))
        assert (out.status, out.iterations) == ("iteration_limit", 40)
        assert out.x.shape == (24,)
        assert out.kkt is not None

    def test_a_crash_of_presolve_costs_only_presolve(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(highs_process, "_CHILD", "nnz_service.no_such_module")
        out = finish(FirstOrder(loop(), FINE))
        assert out.status == "optimal"
        assert any("HiGHS crashed" in note for note in out.notes)

    def test_patience_with_presolve_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(first_order, "PATIENCE", 0.0)
        monkeypatch.setattr(first_order, "_WAIT", 0.001)
        out = finish(FirstOrder(loop(), FINE))
        assert out.status == "optimal"
        assert any("took too long" in note for note in out.notes)


class TestGoingOn:
    def test_bit_for_bit(self, whole: LpOutcome) -> None:
        """Presolve runs again after each restart, and gives the same program."""
        lp = loop()
        solve = FirstOrder(lp, FINE)
        for _ in range(2):
            wait(solve)
            assert isinstance(solve.step(seconds=0.0), LpProgress)
            saved = {name: np.asarray(x) for name, x in solve.state().items()}
            before, solve = solve, FirstOrder.restore(lp, FINE, saved)
            assert solve.iterations == before.iterations > 0
            assert solve.seconds == pytest.approx(before.seconds)
        out = finish(solve)

        assert out.iterations == whole.iterations
        np.testing.assert_array_equal(out.x, whole.x)
        np.testing.assert_array_equal(out.y, whole.y)

    def test_between_the_last_iteration_and_the_way_back(
        self, whole: LpOutcome
    ) -> None:
        lp = loop()
        solve = FirstOrder(lp, FINE)
        wait(solve)
        while not solve.outside:
            assert isinstance(solve.step(seconds=1.0), LpProgress)
        saved = {name: np.asarray(x) for name, x in solve.state().items()}
        solve.close()
        out = finish(FirstOrder.restore(lp, FINE, saved))

        assert out.iterations == whole.iterations
        np.testing.assert_array_equal(out.x, whole.x)

    def test_before_presolve_has_ended(self) -> None:
        solve = FirstOrder(loop(), FINE)
        assert isinstance(solve.step(seconds=0.001), LpProgress)
        saved = {name: np.asarray(x) for name, x in solve.state().items()}
        solve.close()
        assert finish(FirstOrder.restore(loop(), FINE, saved)).status == "optimal"


def test_a_start_and_presolve_exclude_each_other() -> None:
    x0 = np.zeros(2)
    settings = LpSettings("pdhg", presolve=True)
    with pytest.raises(InvalidInputError, match="cannot be taken through presolve"):
        FirstOrder(WYNDOR, settings, x0)
    assert not FirstOrder(WYNDOR, LpSettings("pdhg"), x0).outside
