"""One round of feasibility polishing: x becomes feasible, then y, both nearby.

Applegate, Diaz, Hinder, Lu, Lubin, O'Donoghue, Schudy, "PDLP: a practical first-order
method for large-scale linear programming", arXiv 2501.07018, section on feasibility
polishing: without an objective the method converges fast, to a feasible point near
where it starts. For x the costs are zero and y starts at zero; for y all finite bounds
are zero and x starts at zero. What is moved so little keeps most of its gap.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import Backend, load
from nnz_service.algebra.lp.halpern import Halpern, step_of
from nnz_service.algebra.lp.kkt import Yardstick
from nnz_service.algebra.lp.model import LinearProgram, Vector
from nnz_service.algebra.lp.scaling import Scaled, scale

Side = Literal["primal", "dual"]

_SIDES: tuple[Side, Side] = ("primal", "dual")
#: Of a feasibility program the residuals say nothing about the weight.
_ALIKE = (1.0, 1.0)


class Polishing:
    """A round under way.

    Args:
        program: The program as it was given.
        x: Where x is (n,).
        y: Where y is (m,).
        tolerance: Of the relative primal and dual residuals, see `Kkt`.
        budget: Iterations that each of the two may take.
        threads: How many threads an iteration may use; None means all.
        clock: Seconds that never go back.
        backend: Where iterations run.
    """

    def __init__(
        self,
        program: LinearProgram,
        x: Vector,
        y: Vector,
        tolerance: float,
        budget: int,
        *,
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        backend: Backend = Backend.CPU,
    ) -> None:
        self._lp, self._stick = program, Yardstick(program)
        self._tolerance, self._budget = tolerance, budget
        self._where: Any = {"threads": threads, "clock": clock, "backend": backend}
        self._clock = clock
        self._scaled = scale(program)
        self._step = step_of(self._scaled)
        self.x, self.y = x, y
        self.spent = dict.fromkeys(_SIDES, 0)
        self.failed: Side | None = None
        self.seconds = 0.0
        self._side: Side | None = "primal"
        self._run = self._begun("primal")

    @property
    def iterations(self) -> int:
        """Of both sides so far."""
        return sum(self.spent.values())

    def step(self, seconds: float | None = None) -> bool:
        """Iterate until the budget of time is spent; True when the round is over.

        Then x and y are those that it found, unless one has `failed`.
        """
        began = now = self._clock()
        until = math.inf if seconds is None else began + seconds
        spent = self.seconds
        while self._side is not None:
            with np.errstate(all="ignore"):
                self._advance(self._side)
            now = self._clock()
            self.seconds = spent + now - began
            if now >= until:
                break
        return self._side is None

    def _advance(self, side: Side) -> None:
        is_due = self._run.advance(self._budget)
        self.spent[side] = self._run.restarts.total
        if not is_due:
            return
        found, residual = self._found(side)
        error = self._run.fixed_point_error()
        if residual <= self._tolerance:
            self._end(side, found)
        elif self.spent[side] >= self._budget or not math.isfinite(error + residual):
            self.failed, self._side = side, None
        elif self._run.restarts.is_due(error):
            self._run.restart(_ALIKE)

    def _end(self, side: Side, found: Vector) -> None:
        if side == "primal":
            self.x, self._side = found, "dual"
            self._run = self._begun("dual")
        else:
            self.y, self._side = found, None

    def _begun(self, side: Side) -> Halpern:
        """Return iterations on the feasibility program of one side."""
        rows, columns = self._lp.shape
        problem = feasibility(self._scaled, side)
        pair = (
            (self.x, np.zeros(rows))
            if side == "primal"
            else (np.zeros(columns), self.y)
        )
        return Halpern(problem, self._step, *pair, **self._where)

    def _found(self, side: Side) -> tuple[Vector, float]:
        """Return what one side has, in the units of the user, and its residual."""
        lp, at, kernels = self._lp, self._run.at, load(Backend.CPU)
        if side == "primal":
            x = np.clip(self._scaled.to_x(at.xh), lp.lv, lp.uv)
            return x, self._stick.primal(x, kernels.spmv(lp.a, x))
        y = self._scaled.to_y(at.yh)
        aty = kernels.spmv_t(lp.a, y)
        return y, self._stick.dual(y, aty, self._stick.reduced_costs(aty))

    # -- going on ---------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return arrays and scalars from which `resume` goes on, bit for bit."""
        sides = {f"spent_{side}": self.spent[side] for side in _SIDES}
        told = {"side": self._side or "", "failed": self.failed or ""}
        pair = {"pair_x": self.x, "pair_y": self.y, "seconds": self.seconds}
        return self._run.state() | sides | told | pair | {"budget": self._budget}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.x, self.y = np.asarray(state["pair_x"]), np.asarray(state["pair_y"])
        self.spent = {side: int(state[f"spent_{side}"]) for side in _SIDES}
        self._budget, self.seconds = int(state["budget"]), float(state["seconds"])
        self._side = _side(state["side"])
        self.failed = _side(state["failed"])
        if self._side is not None:
            self._run = self._begun(self._side)
            self._run.resume(state)


def feasibility(scaled: Scaled, side: Side) -> Scaled:
    """Return the program whose solutions are all feasible x, or all feasible y."""
    problem = scaled.problem
    if side == "primal":
        return replace(scaled, problem=replace(problem, c=np.zeros_like(problem.c)))
    moved = replace(
        problem,
        lc=_zero(problem.lc),
        uc=_zero(problem.uc),
        lv=_zero(problem.lv),
        uv=_zero(problem.uv),
    )
    return replace(scaled, problem=moved)


def _zero(bound: HostArray) -> HostArray:
    return np.where(np.isfinite(bound), 0.0, bound)


def _side(text: object) -> Side | None:
    # We wrote it ourselves: it is one of them, or empty.
    return next((side for side in _SIDES if side == str(text)), None)
