"""HiGHS as the second method: in a process of its own, its answer checked by ours."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_service.algebra.lp.highs_process import (
    GRACE,
    CpuTimeError,
    HighsProcess,
    arrays_of,
)
from nnz_service.algebra.lp.model import LinearProgram
from nnz_service.algebra.lp.outcome import Judge, LpOutcome, Status
from nnz_service.algebra.lp.rays import Ray, dual_ray, primal_ray
from nnz_service.algebra.lp.settings import LpSettings
from nnz_service.errors import ServiceError

#: Entries of the matrix up to which HiGHS is the better choice on a CPU.
AUTO_ENTRIES = 2_000_000

#: Entries up to this are left out by HiGHS without a word; it allows no smaller limit.
_LEFT_OUT = 1e-12

_STATUSES: dict[str, Status] = {
    "kInfeasible": "infeasible",
    "kUnbounded": "unbounded",
    "kUnboundedOrInfeasible": "infeasible",
    "kTimeLimit": "time_limit",
    "kIterationLimit": "iteration_limit",
}


class HighsSolve:
    """One run of HiGHS; it begins anew when it is interrupted.

    Args:
        program: The program.
        settings: Tolerances and limits.
        seconds: Computing that earlier attempts have spent.
        memory: Bytes that its process may take; None for no bound.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        program: LinearProgram,
        settings: LpSettings,
        *,
        seconds: float = 0.0,
        memory: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.program, self.settings = program, settings
        self._before, self._memory, self._clock = seconds, memory, clock
        self._run: HighsProcess | None = None
        self._done: LpOutcome | None = None

    @property
    def seconds(self) -> float:
        """Computing so far."""
        return self._before + (0.0 if self._run is None else self._run.seconds)

    def step(self, seconds: float) -> LpOutcome | None:
        """Wait for about that long; return the outcome when it is there.

        Raises:
            TooLargeError: The process ran out of the memory that it may take.
            ServiceError: The process crashed.
        """
        if self._done is None and self.program.shape[1] == 0:
            self._done = self._without_variables()
        if self._done is not None:
            return self._done
        self._run = run = self._run or self._start()
        try:
            answer = run.wait(seconds)
        except CpuTimeError as exc:
            self.close()
            self._done = self._without_pair("time_limit", str(exc))
            return self._done
        except ServiceError:
            self.close()
            raise
        if answer is not None:
            self._done = self._judged(answer)
            self.close()
            return self._done
        limit = self.settings.time_limit
        if limit is None or self.seconds < limit + GRACE:
            return None
        self.close()
        self._done = self._without_pair("time_limit", "HiGHS passed its time limit")
        return self._done

    def close(self) -> None:
        """End the process, if there is one, and remove its files."""
        if self._run is None:
            return
        self._before = self.seconds
        run, self._run = self._run, None
        run.close()

    def _start(self) -> HighsProcess:
        settings = self.settings
        limit = settings.time_limit
        left = None if limit is None else max(limit - self._before, 0.01)
        given = arrays_of(self.program) | {
            "tolerance": np.array(max(settings.eps_rel, settings.eps_abs)),
            "max_iterations": np.array(settings.max_iterations or 0),
            "time_limit": np.array(math.inf if left is None else left),
        }
        return HighsProcess("solve", given, self._memory, left, self._clock)

    def _judged(self, answer: dict[str, HostArray]) -> LpOutcome:
        """Rule on what HiGHS says by what its vectors are worth."""
        said = str(answer["status"])
        if said == "refused":
            return self._without_pair("numerical_error", "HiGHS refused the program")
        rows, columns = self.program.shape
        x, y, r = answer["x"], answer["y"], answer["r"]
        iterations = int(answer["iterations"])
        status = _STATUSES.get(said, "numerical_error")
        if (x.size, y.size, r.size) != (columns, rows, columns) or not all(
            np.isfinite(v).all() for v in (x, y, r)
        ):
            found = self._without_pair(status, f"HiGHS ended with {said[1:]}")
            return self._with_ray(replace(found, iterations=iterations), answer)
        judge = Judge(self.program, self.settings)
        verdict, kkt, why = judge.rule(x, y, r)
        message = f"HiGHS ended with {said[1:]}"
        if said in ("kOptimal", "kUnknown"):
            status, message = verdict or "numerical_error", f"{message}; {why}"
        found = LpOutcome(
            status, "highs", message, iterations, kkt, x, y, r,
            {"seconds": self.seconds}, notes=self.program.notes,
        )  # fmt: skip
        return self._with_ray(found, answer)

    def _with_ray(self, found: LpOutcome, answer: dict[str, HostArray]) -> LpOutcome:
        """Add the certificate, if there is one that holds."""
        if found.status not in ("infeasible", "unbounded"):
            return found
        ray = self._checked_ray(answer.get("ray"))
        if ray is None or ray.status != found.status:
            message = f"{found.message}; there is no certificate that could be checked"
            size = np.abs(self.program.a.data)
            if tiny := int(((size > 0) & (size <= _LEFT_OUT)).sum()):
                message += f", and HiGHS leaves out {tiny} entries up to {_LEFT_OUT:g}"
                return replace(found, status="numerical_error", message=message)
            return replace(found, message=message)
        extra = found.extra | {"ray_fault": ray.fault}
        message = f"{found.message}; its certificate was checked"
        return replace(found, ray=ray.direction, extra=extra, message=message)

    def _checked_ray(self, ray: HostArray | None) -> Ray | None:
        """Return the certificate of HiGHS, whose sign differs, if it is one."""
        if ray is None or not np.isfinite(ray).all():
            return None
        rows, columns = self.program.shape
        if ray.size == rows:
            for y in (ray, -ray):
                if found := dual_ray(self.program, y):
                    return found
        return primal_ray(self.program, ray) if ray.size == columns else None

    def _without_variables(self) -> LpOutcome:
        """Say whether nothing is within the bounds of all rows; HiGHS does not."""
        lp, none = self.program, np.empty(0)
        y = np.zeros(lp.shape[0])
        status, kkt, why = Judge(lp, self.settings).rule(none, y, none)
        found = LpOutcome(
            status or "infeasible", "highs", f"there are no variables; {why}", 0, kkt,
            none, y, none, {"seconds": self.seconds}, notes=lp.notes,
        )  # fmt: skip
        ray = np.where(lp.lc > 0, 1.0, np.where(lp.uc < 0, -1.0, 0.0))
        return self._with_ray(found, {"ray": ray})

    def _without_pair(self, status: Status, message: str) -> LpOutcome:
        empty = np.empty(0)
        return LpOutcome(
            status, "highs", message, 0, None, empty, empty, empty,
            {"seconds": self.seconds}, notes=self.program.notes,
        )  # fmt: skip
