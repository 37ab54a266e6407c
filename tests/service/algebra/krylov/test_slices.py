"""Slices, checkpoints and many right-hand sides."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from service.algebra.krylov.systems import (
    PAIRS,
    SUITED,
    dense,
    only,
    operator,
    poisson,
    right,
    solved,
)

from nnz_service.algebra.krylov import Done, Progress, Solve
from nnz_service.algebra.krylov.preconditioners import prepare
from nnz_service.solving import METHODS, WIDTH, SolveSettings


def frozen(state: dict[str, Any]) -> dict[str, Any]:
    """What comes back from a bundle: arrays, each its own."""
    return {name: np.array(value) for name, value in state.items()}


class TestSteps:
    @pytest.mark.parametrize("method", [m for m in METHODS if m != "direct"])
    def test_progress(self, method: str) -> None:
        """A budget of iterations is kept, and the residual falls."""
        a = SUITED[method]
        solve = Solve(
            operator(a), right(a), settings=SolveSettings(method=method, rtol=1e-9)
        )

        first, second = solve.step(iterations=4), solve.step(iterations=26)

        assert isinstance(first, Progress)
        assert isinstance(second, Progress)
        assert (first.iterations, second.iterations) == (4, 30)
        assert first.residual is not None
        assert second.residual is not None
        assert second.residual < first.residual
        assert first.target == pytest.approx(1e-9 * np.linalg.norm(right(a)))
        assert (first.columns, first.ended, first.phase) == (1, 0, "iterate")

    def test_time(self) -> None:
        """A budget of seconds ends a step by the clock that was given."""
        ticks = iter(range(1000))
        a = SUITED["cg"]
        solve = Solve(operator(a), right(a), clock=lambda: float(next(ticks)))
        solve.step(iterations=1)

        out = solve.step(seconds=3)

        assert isinstance(out, Progress)
        assert out.iterations == 4

    def test_no_slice_waits_for_the_preconditioner(self) -> None:
        """It is made elsewhere; a cancelled solve leaves it behind."""
        gate = threading.Event()

        def slow(*asked: Any) -> Any:
            gate.wait(30)
            return prepare(*asked)

        a = SUITED["cg"]
        solve = Solve(operator(a), right(a), prepare=slow)
        try:
            began = time.monotonic()
            out = solve.step(seconds=0.05)
            done = solve.cancel()
            took = time.monotonic() - began
        finally:
            gate.set()

        assert isinstance(out, Progress)
        assert (out.phase, out.residual) == ("prepare", None)
        assert (done.status, only(done).iterations) == ("cancelled", 0)
        assert took < 5

    def test_what_fails_while_it_is_made_is_raised(self) -> None:
        def broken(*_asked: Any) -> Any:
            raise ZeroDivisionError("a bug")

        solve = Solve(dense([[1]]), np.ones(1), prepare=broken)

        with pytest.raises(ZeroDivisionError, match="a bug"):
            solve.step()


class TestCheckpoints:
    @pytest.mark.parametrize(("method", "preconditioner"), PAIRS)
    def test_bit_for_bit(self, method: str, preconditioner: str) -> None:
        """A pause through `state` at any iteration changes no bit of any column."""
        a = SUITED[method]
        b = right(a, 2)
        settings = SolveSettings(
            method=method, preconditioner=preconditioner, rtol=1e-9, restart=11
        )
        whole = Solve(operator(a), b, settings=settings).step()
        solve = Solve(operator(a), b, settings=settings)

        while isinstance(out := solve.step(iterations=7), Progress):
            state = frozen(solve.state())
            solve = Solve.restore(operator(a), state)
            for value in state.values():
                if value.dtype.kind == "f":
                    value[...] = np.nan  # nothing of it may be in use

        assert isinstance(whole, Done)
        assert out.outcomes == whole.outcomes
        assert out.x.tobytes() == whole.x.tobytes()

    def test_seconds_go_on(self) -> None:
        """The time limit counts what was spent before the pause."""
        ticks = iter(range(1000))
        a = SUITED["cg"]
        asked = SolveSettings(rtol=1e-9, time_limit=10)
        solve = Solve(operator(a), right(a), settings=asked,
                      clock=lambda: float(next(ticks)))  # fmt: skip
        solve.step(iterations=6)

        again = Solve.restore(
            operator(a), frozen(solve.state()), clock=lambda: float(next(ticks))
        )
        done = again.step()

        assert isinstance(done, Done)
        assert (done.status, only(done).iterations) == ("time_limit", 10)


class TestManyColumns:
    @pytest.mark.parametrize("method", ["cg", "minres", "bicgstab", "gmres"])
    def test_company_changes_no_bit(self, method: str) -> None:
        """A column's answer does not depend on the others, nor on waiting its turn."""
        a = SUITED[method]
        b = right(a, WIDTH + 5)

        asked = {"method": method, "rtol": 1e-6}
        done = solved(operator(a), b, **asked)

        assert done.x.shape == (a.shape[0], WIDTH + 5)
        assert done.status == "converged"
        for j in (0, 3, WIDTH + 4):
            alone = solved(operator(a), b[:, j], **asked)
            assert only(alone) == done.outcomes[j]
            assert alone.x.tobytes() == done.x[:, j].tobytes()

    def test_each_has_its_status(self) -> None:
        """One is solved, one is zero, one cannot be; the worst is told first."""
        b = np.array([[1.0, 0, 1], [1, 0, 2]])

        done = solved(dense([[1, 1], [1, 1]]), b, method="gmres")

        assert [o.status for o in done.outcomes] == [
            "converged", "converged", "singular",
        ]  # fmt: skip
        result = done.result()
        assert result["status"] == "singular"
        assert result["residual"] == done.outcomes[2].residual
        assert [row["status"] for row in result["columns"]] == [
            o.status for o in done.outcomes
        ]

    @pytest.mark.parametrize("method", ["lsqr", "direct"])
    def test_other_methods(self, method: str) -> None:
        a = SUITED[method]
        b = right(a, 3)

        done = solved(operator(a), b, method=method, rtol=1e-10)

        assert done.status == "converged"
        residuals = np.linalg.norm(b - a @ done.x, axis=0)
        assert (residuals <= 1.001e-10 * np.linalg.norm(b, axis=0)).all()

    def test_progress_tells_of_the_worst(self) -> None:
        """The right-hand side that is furthest from its target, and how many ended."""
        a = poisson(9)
        b = right(a, 2)
        b[:, 0] = 0
        solve = Solve(operator(a), b, settings=SolveSettings(rtol=1e-9))

        out = solve.step(iterations=5)

        assert isinstance(out, Progress)
        assert (out.columns, out.ended, out.iterations) == (2, 1, 5)
        assert out.target == pytest.approx(1e-9 * np.linalg.norm(b[:, 1]))

    def test_result_is_plain(self) -> None:
        """Everything but x is a JSON type."""
        a = SUITED["cg"]
        result = solved(operator(a), right(a)).result()

        assert "x" not in result
        assert all(type(value) in (str, int, float) for value in result.values())
