"""First-order linear programming: answers, certificates, limits, going on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from service.algebra.lp.programs import INF, INFEASIBLE, UNBOUNDED, WYNDOR, program

from nnz_kernels.convert import csr_from_dense, csr_to_scipy
from nnz_service.algebra.lp.halpern import CHECK
from nnz_service.algebra.lp.model import LinearProgram, linear_program
from nnz_service.algebra.lp.mps import read_mps
from nnz_service.algebra.lp.outcome import SOLVED, Judge, LpOutcome
from nnz_service.algebra.lp.pdhg import LpProgress, Pdhg
from nnz_service.algebra.lp.settings import LpSettings
from nnz_service.errors import InvalidInputError, InvalidMatrixError


def finish(solve: Pdhg) -> LpOutcome:
    out = solve.step(iterations=200_000)
    assert isinstance(out, LpOutcome), out
    return out


def solved(lp: LinearProgram, eps: float = 1e-8, **more: Any) -> LpOutcome:
    return finish(Pdhg(lp, LpSettings(eps_rel=eps, eps_abs=eps, **more)))


def random_program(rows: int, columns: int, seed: int) -> LinearProgram:
    """Feasible and bounded: built around a point, with costs that the bounds hold."""
    rng = np.random.default_rng(seed)
    dense = (rng.random((rows, columns)) < 0.3) * rng.standard_normal((rows, columns))
    ax = dense @ rng.random(columns)
    return linear_program(
        csr_from_dense(dense), rng.standard_normal(columns),
        np.where(rng.random(rows) < 0.3, -INF, ax - rng.random(rows)),
        np.where(rng.random(rows) < 0.3, INF, ax + rng.random(rows)),
        np.full(columns, -1.0), np.full(columns, 2.0),
    )  # fmt: skip


class TestAnswers:
    def test_a_textbook_program(self) -> None:
        out = solved(WYNDOR)

        assert out.status == "optimal"
        assert out.kkt is not None
        np.testing.assert_allclose(out.x, [2, 6], atol=1e-6)
        np.testing.assert_allclose(out.y, [0, -1.5, -1], atol=1e-6)
        np.testing.assert_allclose(out.kkt.objective, 36, rtol=1e-7)
        np.testing.assert_allclose(out.kkt.dual_objective, 36, rtol=1e-7)

    @pytest.mark.parametrize("seed", range(4))
    def test_against_scipy(self, seed: int) -> None:
        lp = random_program(13 + seed, 29, seed)
        a = csr_to_scipy(lp.a)
        finite = np.isfinite(lp.uc), np.isfinite(lp.lc)
        theirs = scipy.optimize.linprog(
            lp.c,
            A_ub=np.vstack([a.toarray()[finite[0]], -a.toarray()[finite[1]]]),
            b_ub=np.concatenate([lp.uc[finite[0]], -lp.lc[finite[1]]]),
            bounds=np.stack([lp.lv, lp.uv], axis=1),
        )

        out = solved(lp)

        assert out.status == "optimal"
        assert out.kkt is not None
        np.testing.assert_allclose(out.kkt.objective, theirs.fun, rtol=1e-6)
        assert out.kkt.worst <= 1e-7

    def test_offset_equation_and_free_variables(self) -> None:
        """min |x| as x = p - q, x = 3 with a constant of 10."""
        lp = program(
            [[1, -1, -1], [0, 0, 1]], [1, 1, 0], [0, 3], [0, 3],
            lv=[0, 0, -INF], offset=10.0,
        )  # fmt: skip
        out = solved(lp)
        assert out.kkt is not None
        np.testing.assert_allclose(out.kkt.objective, 13, rtol=1e-7)

    @pytest.mark.parametrize("maximize", [False, True])
    def test_an_offset_loosens_nothing(self, maximize: bool) -> None:
        """The iterations are those without it, and the gap is compared as there."""
        costs = [1, 2] if maximize else [-1, -2]
        asked = {"uv": [1, 1], "maximize": maximize}
        plain, moved = (
            solved(
                program([[1, 1]], costs, [-INF], [1.5], **asked, offset=offset), 1e-6
            )
            for offset in (0.0, 1e6)
        )

        assert (plain.status, moved.status) == ("optimal", "optimal")
        assert moved.x.tolist() == plain.x.tolist()
        np.testing.assert_allclose(moved.x, [0.5, 1], atol=1e-5)
        assert plain.kkt is not None
        assert moved.kkt is not None
        assert moved.kkt.relative_gap == plain.kkt.relative_gap
        assert moved.kkt.objective == pytest.approx(plain.kkt.objective + 1e6)

    @pytest.mark.parametrize(
        ("rows", "columns"), [(0, 2), (2, 0), (0, 0)], ids=["rows", "columns", "both"]
    )
    def test_nothing_there(self, rows: int, columns: int) -> None:
        lp = program(
            [[] for _ in range(rows)], [1.0] * columns, [-1.0] * rows, [1.0] * rows
        )
        out = solved(lp)
        assert out.status == "optimal"
        assert out.x.tolist() == [0.0] * columns

    def test_empty_rows_and_columns(self) -> None:
        """A row of nothing holds or not; a column of nothing goes to its bound."""
        lp = program([[0, 1], [0, 0]], [-1, 1], [2, -1], [INF, 1], uv=[7, INF])
        out = solved(lp)
        np.testing.assert_allclose(out.x, [7, 2], atol=1e-6)

    def test_netlib(self, data_dir: Path) -> None:
        out = solved(read_mps(data_dir / "lp" / "netlib" / "sc105.mps.gz"))
        assert out.status == "optimal"
        assert out.kkt is not None
        np.testing.assert_allclose(out.kkt.objective, -52.202061212, rtol=1e-6)


class TestCertificates:
    def test_infeasible(self) -> None:
        out = solved(INFEASIBLE)
        assert out.status == "infeasible"
        assert out.ray is not None
        # The rows added up: 0 >= 1.
        np.testing.assert_allclose(out.ray, [-1, 1], rtol=1e-6)

    def test_unbounded(self) -> None:
        out = solved(UNBOUNDED)
        assert out.status == "unbounded"
        assert out.ray is not None
        assert out.ray.min() > 0
        assert out.ray[0] <= out.ray[1] * (1 + 1e-6)

    @pytest.mark.parametrize("name", ["woodinfe", "galenet", "ex72a", "box1"])
    def test_files(self, data_dir: Path, name: str) -> None:
        """Programs that are infeasible are never called anything better."""
        lp = read_mps(data_dir / "lp" / "highs" / f"{name}.mps")
        out = solved(lp, 1e-6, max_iterations=40_000)
        assert out.status in ("infeasible", "iteration_limit"), out.message


class TestLimits:
    def test_iterations(self) -> None:
        out = solved(random_program(20, 30, 1), 1e-12, max_iterations=57)
        assert (out.status, out.iterations) == ("iteration_limit", 57)
        assert out.kkt is not None

    def test_what_was_reached_before_the_limit_counts(self) -> None:
        """The time that single rows get does not cost the answer its status."""
        lp = program([[1, 0], [0, 1]], [1, 1], [1e4, 1], [INF, INF])
        settings = LpSettings(eps_rel=1e-3, eps_abs=0)
        whole = Pdhg(lp, settings)
        while not whole._passed:
            assert isinstance(whole.step(iterations=CHECK), LpProgress)

        short = replace(settings, max_iterations=whole.iterations)
        assert finish(Pdhg(lp, short)).status == "optimal_relative_only"

    def test_time(self) -> None:
        now = iter(np.arange(0.0, 1e6, 0.5))
        settings = LpSettings(eps_rel=1e-13, eps_abs=0, time_limit=20.0)
        solve = Pdhg(random_program(20, 30, 1), settings, clock=lambda: next(now))
        out = solve.step(seconds=1000.0)
        assert isinstance(out, LpOutcome)
        assert out.status == "time_limit"

    def test_what_overflows_is_told(self) -> None:
        out = solved(program([[1, 1]], [1.7e308, 1.7e308], [1], [INF]))
        assert out.status == "numerical_error"
        assert out.kkt is None

    def test_a_slice_ends_and_says_where_it_is(self) -> None:
        solve = Pdhg(random_program(20, 30, 1), LpSettings(eps_rel=1e-13, eps_abs=0))
        out = solve.step(iterations=40)
        assert isinstance(out, LpProgress)
        assert out.iterations == 40
        assert out.relative_gap is not None
        assert solve.cancel().status == "cancelled"

    def test_loose_in_the_large(self) -> None:
        """One huge bound hides a violation from the 2-norm; the status tells."""
        lp = program([[1, 0], [0, 1]], [0, 1], [1e6, 1], [INF, INF], uv=[2e6, INF])
        solve = Pdhg(lp, LpSettings(eps_rel=1e-3, eps_abs=1e-3))
        out = finish(solve)
        assert out.kkt is not None
        expected = "optimal" if abs(out.x[1] - 1) <= 4e-3 else "optimal_relative_only"
        assert out.status == expected

    @pytest.mark.parametrize("large", [1e2, 1e3, 1e4, 1e5, 1e6])
    @pytest.mark.parametrize("seed", range(3))
    def test_one_variable_is_large(self, large: float, seed: int) -> None:
        """While the others wait at their bounds the weight must not run away."""
        rng = np.random.default_rng(seed)
        dense = (rng.random((12, 20)) < 0.4) * rng.integers(1, 9, (12, 20))
        c = dense.T @ rng.random(12) + rng.random(20) * (rng.random(20) < 0.5)
        x, rows = rng.random(20), np.pad(dense.astype(float), (0, 1))
        rows[-1, -1] = 1
        lp = program(
            rows.tolist(), [*c, 0.0], [*(dense @ x), large], [INF] * 13,
            uv=[3.0] * 20 + [2 * large],
        )  # fmt: skip
        wanted = scipy.optimize.linprog(
            [*c, 0.0], -rows, -np.array([*(dense @ x), large]),
            bounds=[(0, 3.0)] * 20 + [(0, 2 * large)],
        )  # fmt: skip
        out = solved(lp, 1e-6, max_iterations=10_000)
        assert out.status in SOLVED
        assert out.kkt is not None
        assert out.kkt.objective == pytest.approx(wanted.fun, rel=1e-4)


class TestDrift:
    """Violations that the norms let pass, at the prices of the pair."""

    def test_of_what_is_exact(self) -> None:
        kkt = solved(WYNDOR, 1e-12).kkt
        assert kkt is not None
        assert kkt.drift < 1e-9

    def test_of_a_row_and_of_a_price(self) -> None:
        """min x with x >= 10, at x = 9 and y = 0.75: 0.75 * 1 and 9 * 0.25."""
        lp = program([[1.0]], [1], [10], [INF], lv=[-INF])
        x, y, r = np.array([9.0]), np.array([0.75]), np.array([0.0])
        judge = Judge(lp, LpSettings(eps_rel=1e-2, eps_abs=0.0))
        kkt = judge.measure(x, y, r)
        assert kkt.drift == pytest.approx(0.75 * 1 + 9 * 0.25)
        assert judge.drifts(kkt)
        loose = LpSettings(eps_rel=0.1, eps_abs=0.0)
        assert not Judge(lp, loose).drifts(kkt)  # 5 * 0.1 * (9 + 7.5)

    def test_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three times as long as it took to be within the norms, and no longer."""
        lp = random_program(20, 30, 1)
        settings = LpSettings(eps_rel=1e-13, eps_abs=0)
        solve = Pdhg(lp, settings)
        solve._run.restarts.total = 200 * CHECK
        kkt = Judge(lp, settings).measure(*(np.zeros(n) for n in (30, 20, 30)))
        for drifts, share in ((True, 3.0), (False, 0.25)):
            monkeypatch.setattr(Judge, "drifts", lambda *_, found=drifts: found)
            solve._passed = int(solve.iterations / (1 + share)) + CHECK
            assert solve._may_wait(kkt)
            solve._passed = int(solve.iterations / (1 + share)) - CHECK
            assert not solve._may_wait(kkt)


class TestWhatCountsAsError:
    """Multipliers of bounds that are not there prove nothing, whoever made them."""

    def test_of_a_row(self) -> None:
        lp = program([[1.0]], [1], [-INF], [4])  # x >= 0, x <= 4: optimum 0
        x, r = np.array([0.0]), np.array([0.0])
        status, kkt, _ = Judge(lp, LpSettings()).rule(x, np.array([1.0]), r)
        assert status is None
        assert kkt.dual_residual == pytest.approx(1.0)

    def test_of_a_variable(self) -> None:
        lp = program([[1.0]], [1], [0], [4], lv=[-INF])
        status, kkt, _ = Judge(lp, LpSettings()).rule(
            np.array([0.0]), np.array([0.0]), np.array([1.0])
        )
        assert status is None
        assert kkt.dual_residual == pytest.approx(1.0)


class TestGoingOn:
    def test_bit_for_bit(self) -> None:
        lp, settings = random_program(31, 47, 5), LpSettings(eps_rel=1e-9, eps_abs=0)
        whole = finish(Pdhg(lp, settings))
        solve = Pdhg(lp, settings)
        for _ in range(5):
            solve.step(iterations=33)
            saved = {name: np.asarray(x) for name, x in solve.state().items()}
            solve = Pdhg.restore(lp, settings, saved)
        out = finish(solve)

        assert out.iterations == whole.iterations > 5 * 33
        np.testing.assert_array_equal(out.x, whole.x)
        np.testing.assert_array_equal(out.y, whole.y)

    def test_a_warm_start_is_shorter(self) -> None:
        lp = random_program(31, 47, 5)
        settings = LpSettings(eps_rel=1e-6, eps_abs=1e-6)
        cold = finish(Pdhg(lp, settings))
        warm = finish(Pdhg(lp, settings, cold.x, cold.y))
        assert warm.iterations <= cold.iterations // 2
        assert warm.status == "optimal"


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        pytest.param({"c": [np.nan]}, r"c\[0\] is nan", id="nan"),
        pytest.param({"lc": [2.0], "uc": [1.0]}, "must not pass", id="crossed"),
        pytest.param({"lv": [INF]}, r"lv\[0\] is inf", id="infinite"),
        pytest.param({"uv": [-1e20]}, r"uv\[0\] is -inf", id="huge"),
        pytest.param({"c": [1.0, 2.0]}, r"c is float64 of shape \[2\]", id="shape"),
    ],
)
def test_wrong_vectors_are_refused(vectors: dict[str, Any], says: str) -> None:
    right = {"c": [1.0], "lc": [0.0], "uc": [1.0], "lv": [0.0], "uv": [1.0]}
    arrays = {name: np.array(v) for name, v in (right | vectors).items()}
    with pytest.raises(InvalidInputError, match=says):
        linear_program(csr_from_dense(np.ones((1, 1))), **arrays)


def test_a_matrix_with_a_nan_is_refused() -> None:
    with pytest.raises(InvalidMatrixError, match="row 0, column 1 is nan"):
        program([[1, np.nan]], [1, 1], [0], [1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "simplex"}, {"eps_rel": -1.0}, {"eps_rel": 0.0, "eps_abs": 0.0},
        {"max_iterations": 0}, {"time_limit": 0.0}, {"eps_abs": "1"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        LpSettings.of(wrong)
