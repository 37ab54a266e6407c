"""First-order solves whose answer is made feasible: iterations and polishing in turns.

The iterations end where the tolerances are met; polishing (`polishing`) then moves x
and y to where they are feasible to a tolerance of their own. Where it fails, or the
pair has lost its gap, the iterations go on to smaller tolerances and it is tried again.
What counts is what is measured on the program as it was given.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import Backend, load
from nnz_service.algebra.lp.first_order import FirstOrder
from nnz_service.algebra.lp.model import LinearProgram, Vector
from nnz_service.algebra.lp.outcome import SOLVED, Judge, LpOutcome
from nnz_service.algebra.lp.pdhg import LpProgress
from nnz_service.algebra.lp.polishing import Polishing
from nnz_service.algebra.lp.settings import LpSettings

#: Iterations that each side of a round may take, unless more were done before.
LEAST = 1000

#: By how much the tolerances fall after a round in vain, and how often at most.
_AGAIN, _ROUNDS = 0.3, 6

_ABOUT = ("status", "method", "message", "iterations", "extra", "notes")
_ROUND, _BEST = "round_", "found_"


class Polished:
    """Solve a linear program by PDHG, and polish what it finds.

    Args:
        program: The program.
        settings: As for `FirstOrder`, and `polish`.
        x0: Where to start (n,); there is no presolve then.
        y0: Dual values to start with (m,).
        memory: Bytes that a process of HiGHS may take; None for no bound.
        threads: How many threads an iteration may use; None means all.
        clock: Seconds that never go back.
        backend: Where iterations run.

    Raises:
        InvalidInputError: A start or a setting does not fit.
    """

    def __init__(
        self,
        program: LinearProgram,
        settings: LpSettings,
        x0: HostArray | None = None,
        y0: HostArray | None = None,
        *,
        memory: int | None = None,
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        backend: Backend = Backend.CPU,
    ) -> None:
        where: Any = {"threads": threads, "clock": clock, "backend": backend}
        solve = FirstOrder(program, settings, x0, y0, memory=memory, **where)
        self._set(solve, where)

    def _set(self, solve: FirstOrder, where: dict[str, Any]) -> None:
        if solve.settings.polish is None:
            raise ValueError("the settings do not ask for polishing")
        self._solve, self._where = solve, where
        self._tolerance = solve.settings.polish
        self._judge = Judge(solve.program, solve.settings)
        self._best: LpOutcome | None = None  # of what met the tolerances
        self._is_waiting = False  # whether it is still to be polished
        self._round: Polishing | None = None
        self._rounds = 0
        self._sides = {"primal": 0, "dual": 0}  # iterations of rounds that are over
        self._done: LpOutcome | None = None

    @property
    def outside(self) -> bool:
        """Whether a step waits for another process, or prepares, without iterating."""
        if self._round is not None:
            return False
        return self._is_waiting or self._solve.outside

    @property
    def iterations(self) -> int:
        """Iterations so far, those of polishing too."""
        return self._solve.iterations + (self._round.iterations if self._round else 0)

    @property
    def seconds(self) -> float:
        """Computing so far."""
        return self._solve.seconds + (self._round.seconds if self._round else 0.0)

    def step(self, *, seconds: float | None = None) -> LpProgress | LpOutcome:
        """Work until it ends or the budget is spent; to the end without one."""
        while self._done is None:
            if self._round is not None:
                if self._round.step(seconds) or self._is_over_time():
                    self._take_round(self._round)
            elif self._is_waiting and self._best is not None:
                self._begin(self._best)
            else:
                found = self._solve.step(seconds=seconds)
                if isinstance(found, LpOutcome):
                    self._take(found)
            if seconds is not None:
                break
        return self._done or self.progress()

    def progress(self) -> LpProgress:
        """Return where the iterations stood at their last check."""
        return replace(self._solve.progress(), iterations=self.iterations)

    def close(self) -> None:
        """End the other process, if there is one."""
        self._solve.close()

    # -- rounds -----------------------------------------------------------------------

    def _take(self, found: LpOutcome) -> None:
        """Polish what the iterations ended with, if it is a solution."""
        best, new = self._best, None
        if found.kkt is not None and found.ray is None:
            # It may have gone on to smaller tolerances than those that count.
            new = self._ruled(found, found.x, found.y, found.reduced_costs)
        if new is None:
            self._end(best or found, found.message if best else "")
            return
        self._best = best = _better(best, new)
        if self._is_feasible(best):
            self._end(best)
        else:
            self._is_waiting = True

    def _begin(self, found: LpOutcome) -> None:
        self._is_waiting = False
        budget = max(LEAST, self._solve.iterations)
        if (left := self._left()) is not None:
            budget = min(budget, left // 2)
        if budget < 1 or self._is_over_time():
            self._end(found, "there was no time for it")
            return
        self._rounds += 1
        self._round = Polishing(
            self._solve.program,
            found.x,
            found.y,
            self._tolerance,
            budget,
            **self._where,
        )

    def _take_round(self, ended: Polishing) -> None:
        """End with what a round found, or go on."""
        self._round = None
        self._solve.charge(ended.iterations, ended.seconds)
        for side, spent in ended.spent.items():
            self._sides[side] += spent
        best = self._best
        if best is None:
            raise RuntimeError("nothing was to be polished")
        if ended.failed != "primal":
            # Of a round that failed half-way x is feasible, and y is what it was.
            aty = load(Backend.CPU).spmv_t(self._solve.program.a, ended.y)
            r = self._judge.yardstick.reduced_costs(aty)
            new = self._ruled(best, ended.x, ended.y, r)
            self._best = best = best if new is None else _better(best, new)
        if self._is_feasible(best):
            self._end(best)
            return
        left = self._left()
        if self._rounds >= _ROUNDS or left == 0 or self._is_over_time():
            self._end(best, "it came to no end")
        else:
            self._solve.tighten(_AGAIN)

    def _ruled(
        self, found: LpOutcome, x: Vector, y: Vector, r: Vector
    ) -> LpOutcome | None:
        """Return an outcome with another pair, if that is within the tolerances."""
        status, kkt, why = self._judge.rule(x, y, r)
        if status is None:
            return None
        return replace(
            found, status=status, message=why, kkt=kkt, x=x, y=y, reduced_costs=r
        )

    def _is_feasible(self, found: LpOutcome) -> bool:
        if (kkt := found.kkt) is None:
            return False
        worst = max(kkt.relative_primal_residual, kkt.relative_dual_residual)
        return worst <= self._tolerance

    def _left(self) -> int | None:
        """Return the iterations that are left; None without a limit."""
        limit = self._solve.settings.max_iterations
        return None if limit is None else max(0, limit - self.iterations)

    def _is_over_time(self) -> bool:
        limit = self._solve.settings.time_limit
        return limit is not None and self.seconds >= limit

    def _end(self, found: LpOutcome, why: str = "") -> None:
        """End with an outcome; *why* it was not polished, where there is a reason."""
        reached = self._is_feasible(found)
        message = found.message
        if reached:
            message += f"; relative residuals are at most {self._tolerance:g}"
        elif why:
            message += f"; polishing did not reach {self._tolerance:g}: {why}"
        told = {
            "tolerance": self._tolerance,
            "reached": reached,
            "rounds": self._rounds,
            "primal_iterations": self._sides["primal"],
            "dual_iterations": self._sides["dual"],
        }
        extra = found.extra | {"seconds": self.seconds, "polish": told}
        self._done = replace(
            found, message=message, iterations=self.iterations, extra=extra
        )

    # -- going on ---------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return arrays and scalars from which `restore` goes on, bit for bit."""
        state = self._solve.state() | {
            "rounds": self._rounds,
            "is_waiting": self._is_waiting,
            **{f"{side}_iterations": n for side, n in self._sides.items()},
        }
        if (best := self._best) is not None:
            about = {name: getattr(best, name) for name in _ABOUT}
            vectors = {"x": best.x, "y": best.y, "r": best.reduced_costs}
            ours = vectors | {"about": np.array(json.dumps(about))}
            state |= {_BEST + name: value for name, value in ours.items()}
        if self._round is not None:
            ours = self._round.state()
            state |= {_ROUND + name: value for name, value in ours.items()}
        return state

    @classmethod
    def restore(
        cls,
        program: LinearProgram,
        settings: LpSettings,
        state: Mapping[str, Any],
        *,
        memory: int | None = None,
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        backend: Backend = Backend.CPU,
    ) -> Polished:
        """Return a solve that goes on where `state` was taken."""
        where: Any = {"threads": threads, "clock": clock, "backend": backend}
        # Without what is ours: it hands on what it was given until presolve has ended.
        theirs = {n: v for n, v in state.items() if not n.startswith((_ROUND, _BEST))}
        found = cls.__new__(cls)
        found._set(
            FirstOrder.restore(program, settings, theirs, memory=memory, **where), where
        )
        found._rounds = int(state["rounds"])
        found._is_waiting = bool(state["is_waiting"])
        found._sides = {n: int(state[f"{n}_iterations"]) for n in found._sides}
        if _BEST + "about" in state:
            found._best = found._told(state)
        saved = {
            name.removeprefix(_ROUND): value
            for name, value in state.items()
            if name.startswith(_ROUND)
        }
        if saved and found._best is not None:
            best = found._best
            found._round = Polishing(
                program, best.x, best.y, found._tolerance, 1, **where
            )
            found._round.resume(saved)
        return found

    def _told(self, state: Mapping[str, Any]) -> LpOutcome:
        about = json.loads(str(state[_BEST + "about"]))
        x, y, r = (np.asarray(state[_BEST + name]) for name in ("x", "y", "r"))
        kkt = self._judge.measure(x, y, r)
        return LpOutcome(
            **about | {"notes": tuple(about["notes"])},
            kkt=kkt, x=x, y=y, reduced_costs=r,
        )  # fmt: skip


def _better(old: LpOutcome | None, new: LpOutcome) -> LpOutcome:
    """Return the later of two solutions, unless its status says less."""
    if old is not None and SOLVED.index(new.status) > SOLVED.index(old.status):
        return old
    return new
