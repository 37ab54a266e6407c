"""Linear programs by restarted, reflected Halpern PDHG, as a resumable state machine.

The iterations (`halpern`) run on a scaled program; every residual is taken in the units
of the user, and the end is ruled on the program as it was given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import Backend
from nnz_service.algebra.lp.halpern import CHECK, Halpern, step_of
from nnz_service.algebra.lp.kkt import Kkt, Norms
from nnz_service.algebra.lp.model import LinearProgram, Vector
from nnz_service.algebra.lp.outcome import Judge, LpOutcome, Status
from nnz_service.algebra.lp.rays import Ray, dual_ray, primal_ray
from nnz_service.algebra.lp.scaling import scale
from nnz_service.algebra.lp.settings import LpSettings
from nnz_service.errors import InvalidInputError

#: Checks between two searches for a certificate of infeasibility.
RAY_CHECKS = 8

_LIMIT = 2**62

#: Iterations, at least, in which every row may come within its own tolerance.
_GRACE = 400

#: The same as a share of those before; and where the violations may move the objective.
_SHARE, _SHARE_OF_DRIFT = 0.25, 3.0


@dataclass(frozen=True, slots=True)
class LpProgress:
    """Where an unfinished solve stands, as of its last check."""

    iterations: int
    restarts: int
    relative_primal_residual: float | None
    relative_dual_residual: float | None
    relative_gap: float | None
    objective: float | None


class Pdhg:
    """Solve a linear program to moderate accuracy with products alone.

    Args:
        program: The program.
        settings: Tolerances and limits.
        x0: Where to start (n,); zero, or the bound nearest to it, by default.
        y0: Dual values to start with (m,); zero by default.
        norms: What residuals are compared with, where the program stands for another.
        threads: How many threads an iteration may use; None means all.
        clock: Seconds that never go back.
        backend: Where iterations run; residuals are looked at on the host.

    Raises:
        InvalidInputError: A start or a setting does not fit.
    """

    def __init__(
        self,
        program: LinearProgram,
        settings: LpSettings | None = None,
        x0: HostArray | None = None,
        y0: HostArray | None = None,
        *,
        norms: Norms | None = None,
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        backend: Backend = Backend.CPU,
    ) -> None:
        self.program = program
        self.settings = settings or LpSettings()
        self.settings.check()
        self._clock = clock
        rows, columns = program.shape
        x = np.zeros(columns) if x0 is None else _start("x0", x0, columns)
        y = np.zeros(rows) if y0 is None else _start("y0", y0, rows)
        self._judge = Judge(program, self.settings, norms)
        scaled = scale(program)
        where: Any = {"threads": threads, "clock": clock, "backend": backend}
        self._run = Halpern(scaled, step_of(scaled), x, y, **where)
        self.seconds = 0.0
        self._passed = 0  # iterations when the norms were within the tolerances
        self._kkt: Kkt | None = None
        self._done: LpOutcome | None = None

    @property
    def iterations(self) -> int:
        """Iterations so far."""
        return self._run.restarts.total

    def step(
        self, *, seconds: float | None = None, iterations: int | None = None
    ) -> LpProgress | LpOutcome:
        """Iterate until it ends or the budget is spent.

        Args:
            seconds: Time to use; it is looked at after each call of the kernel.
            iterations: Iterations to do, at least.
        """
        began = now = self._clock()
        until = math.inf if seconds is None else began + seconds
        goal = _LIMIT if iterations is None else self.iterations + iterations
        spent = self.seconds
        while self._done is None:
            with np.errstate(all="ignore"):  # overflow is told by a status
                self._advance()
            now = self._clock()
            self.seconds = spent + now - began
            if now >= until or self.iterations >= goal:
                break
        return self._done or self.progress()

    def progress(self) -> LpProgress:
        """Return where the solve stood at its last check."""
        kkt, restarts = self._kkt, self._run.restarts
        if kkt is None or not math.isfinite(kkt.worst):
            return LpProgress(restarts.total, restarts.count, None, None, None, None)
        return LpProgress(
            restarts.total,
            restarts.count,
            kkt.relative_primal_residual,
            kkt.relative_dual_residual,
            kkt.relative_gap,
            kkt.objective,
        )

    def cancel(self) -> LpOutcome:
        """End the solve where it stands."""
        if self._done is not None:
            return self._done
        return self._end("cancelled", "cancelled by the caller", *self._pair()[:3])

    def tighten(self, settings: LpSettings) -> None:
        """Go on from where it ended, with other tolerances."""
        norms = self._judge.yardstick.norms
        self.settings = settings
        self._judge = Judge(self.program, settings, norms)
        self._passed, self._done = 0, None

    def state(self) -> dict[str, Any]:
        """Return arrays and scalars from which `restore` goes on, bit for bit."""
        scalars = {"seconds": self.seconds, "passed": self._passed}
        return self._run.state() | scalars

    @classmethod
    def restore(
        cls,
        program: LinearProgram,
        settings: LpSettings,
        state: Mapping[str, Any],
        *,
        norms: Norms | None = None,
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        backend: Backend = Backend.CPU,
    ) -> Pdhg:
        """Return a solve that goes on where `state` was taken."""
        where: Any = {"threads": threads, "clock": clock, "backend": backend}
        solve = cls(program, settings, norms=norms, **where)
        solve._run.resume(state)
        solve.seconds = float(state["seconds"])
        solve._passed = int(state["passed"])
        return solve

    def _advance(self) -> None:
        """Do one call of the kernel, and what is due after it."""
        if self._run.advance(self.settings.max_iterations):
            self._check()

    def _check(self) -> None:
        """Look at the residuals: end, or restart, or go on."""
        error = self._run.fixed_point_error()
        x, y, r, kkt = self._pair()
        self._kkt = kkt
        if not math.isfinite(kkt.worst) or not math.isfinite(error):
            self._end("numerical_error", "a number overflowed or became NaN", x, y, r)
            return
        if self._judge.close_enough(kkt):
            status, _, why = self._judge.rule(x, y, r)
            if status is not None and (status == "optimal" or not self._may_wait(kkt)):
                self._end(status, why, x, y, r)
                return
        restarts = self._run.restarts
        if (restarts.total // CHECK) % RAY_CHECKS == 0 and (ray := self._ray()):
            self._end_with(ray, x, y, r)
        elif restarts.total == self.settings.max_iterations:
            self._end("iteration_limit", f"{restarts.total} iterations", x, y, r)
        elif self.settings.time_limit and self.seconds >= self.settings.time_limit:
            self._end("time_limit", f"{self.seconds:.1f} s of computing", x, y, r)
        elif restarts.is_due(error):
            residuals = kkt.relative_primal_residual, kkt.relative_dual_residual
            self._run.restart(residuals)

    def _may_wait(self, kkt: Kkt) -> bool:
        """Whether rows, or the objective, may have time to follow the norms."""
        limit, seconds = self.settings.max_iterations, self.settings.time_limit
        if self.iterations == limit or (seconds and self.seconds >= seconds):
            return False
        if not self._passed:
            self._passed = self.iterations
        share = _SHARE_OF_DRIFT if self._judge.drifts(kkt) else _SHARE
        return self.iterations < self._passed + max(_GRACE, int(share * self._passed))

    def _pair(self) -> tuple[Vector, Vector, Vector, Kkt]:
        """Return x, y, reduced costs and residuals, in the units of the user.

        Two choices of reduced costs are dual to y: those of the last projection, and
        those nearest to ``c - A'y``. The better one counts.
        """
        scaled, at = self._run.scaled, self._run.at
        problem, lp = scaled.problem, self.program
        x = np.clip(scaled.to_x(at.xh), lp.lv, lp.uv)
        y = scaled.to_y(at.yh)
        ax = scaled.to_activity(self._run.product(problem.a, at.xh))
        aty = scaled.columns * self._run.product(problem.at, at.yh) / scaled.costs
        stick = self._judge.yardstick
        choices = (scaled.to_r(at.r), stick.reduced_costs(aty))
        found = [(r, stick.measure(x, ax, y, aty, r)) for r in choices]
        r, kkt = found[0]
        if self._judge.close_enough(found[1][1]) or not math.isfinite(kkt.worst):
            r, kkt = found[1]
        return x, y, r, kkt

    def _ray(self) -> Ray | None:
        """Return a certificate, if the way since the anchor is one."""
        at, scaled, lp = self._run.at, self._run.scaled, self.program
        return dual_ray(lp, scaled.to_y(at.yh - at.y0)) or primal_ray(
            lp, scaled.to_x(at.xh - at.x0)
        )

    def _end_with(self, ray: Ray, x: Vector, y: Vector, r: Vector) -> None:
        what = {
            "infeasible": "a combination of rows proves that no x is feasible",
            "unbounded": "along a ray the objective has no bound, if any x is feasible",
        }[ray.status]
        found = self._end(ray.status, f"{what} (fault {ray.fault:.1e})", x, y, r)
        extra = found.extra | {"ray_fault": ray.fault}
        self._done = replace(found, ray=ray.direction, extra=extra)

    def _end(
        self, status: Status, message: str, x: Vector, y: Vector, r: Vector
    ) -> LpOutcome:
        with np.errstate(all="ignore"):
            kkt = self._judge.measure(x, y, r)
        self._done = done = LpOutcome(
            status, "pdhg", message, self.iterations,
            kkt if all(map(math.isfinite, asdict(kkt).values())) else None,
            x, y, r,
            {"restarts": self._run.restarts.count, "seconds": self.seconds},
            notes=self.program.notes,
        )  # fmt: skip
        return done


def _start(name: str, x: HostArray, size: int) -> Vector:
    if x.shape != (size,) or x.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"{name} is {x.dtype} of shape {list(x.shape)}, but must be real of shape "
            f"[{size}]"
        )
    out = np.array(x, np.float64)
    if not np.isfinite(out).all():
        raise InvalidInputError(f"{name} holds a NaN or an infinity")
    return out
