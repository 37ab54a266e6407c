"""First-order solves with presolve around them, as one resumable state machine.

Presolve by HiGHS, iterations on what is left, postsolve, and the ruling on the program
as it was given. Where postsolve loses too much the iterations go on with smaller
tolerances; where presolve or postsolve fails they begin on the program itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import Backend, load
from nnz_service.algebra.lp.highs_process import HighsProcess, is_installed
from nnz_service.algebra.lp.kkt import Kkt, Norms, signed
from nnz_service.algebra.lp.model import LinearProgram, Vector
from nnz_service.algebra.lp.outcome import SOLVED, Judge, LpOutcome, Status
from nnz_service.algebra.lp.pdhg import LpProgress, Pdhg
from nnz_service.algebra.lp.presolve import (
    Reduction,
    reduction_of,
    start_postsolve,
    start_presolve,
)
from nnz_service.algebra.lp.settings import FINEST, LpSettings
from nnz_service.errors import InvalidInputError, ServiceError

#: Seconds that presolve and postsolve may take each; beyond, they are done without.
PATIENCE = 60.0

#: Seconds of one wait when nobody asked for slices.
_WAIT = 1.0

#: By how much the tolerances of the reduced program fall when its solution, taken back,
#: misses those of the program: to this share of what would be right, within limits.
_AIM, _LEAST, _MOST = 0.9, 0.1, 0.9

#: Share of the tolerances below which it makes no sense to go on.
_FLOOR = 1e-3

_PAIR = ("x", "y", "reduced_costs")


class FirstOrder:
    """Solve a linear program by PDHG, presolved where that is possible.

    Args:
        program: The program.
        settings: Tolerances, limits, and whether to presolve.
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
        settings: LpSettings | None = None,
        x0: HostArray | None = None,
        y0: HostArray | None = None,
        *,
        memory: int | None = None,
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        backend: Backend = Backend.CPU,
    ) -> None:
        self.program = program
        self.settings = settings or LpSettings()
        self.settings.check()
        self._memory, self._clock = memory, clock
        self._where: Any = {"threads": threads, "clock": clock, "backend": backend}
        self._judge = Judge(program, self.settings)
        self._process: HighsProcess | None = None
        self._reduction: Reduction | None = None
        self._inner: Pdhg | None = None
        self._share = 1.0  # of the tolerances, that the reduced program must meet
        self._pending: LpOutcome | None = None
        self._saved: Mapping[str, Any] | None = None
        self._notes: tuple[str, ...] = ()
        self._spent = 0.0  # seconds besides the iterations under way
        self._before = 0  # iterations that led to nothing
        self._done: LpOutcome | None = None
        if not _presolves(self.settings, program, warm=not (x0 is None and y0 is None)):
            self._inner = self._pdhg(program, x0, y0)

    @property
    def outside(self) -> bool:
        """Whether a step waits for another process instead of computing."""
        return self._inner is None or self._pending is not None

    @property
    def iterations(self) -> int:
        """Iterations so far."""
        return self._before + self._under_way[0]

    @property
    def seconds(self) -> float:
        """Computing so far."""
        waited = 0.0 if self._process is None else self._process.seconds
        return self._spent + waited + self._under_way[1]

    @property
    def _under_way(self) -> tuple[int, float]:
        """Count and seconds of the iterations under way, also of those laid by."""
        if self._inner is not None:
            return self._inner.iterations, self._inner.seconds
        if self._saved is not None:
            return int(self._saved["total"]), float(self._saved["seconds"])
        return 0, 0.0

    def step(self, *, seconds: float | None = None) -> LpProgress | LpOutcome:
        """Work until it ends or the budget is spent; to the end without one."""
        while self._done is None:
            if self.outside:
                self._wait(_WAIT if seconds is None else seconds)
            else:
                self._iterate(seconds)
            if seconds is not None:
                break
        return self._done or self.progress()

    def progress(self) -> LpProgress:
        """Return where the solve stood at its last check."""
        if self._inner is None:
            return LpProgress(self.iterations, 0, None, None, None, None)
        found = self._inner.progress()
        return replace(found, iterations=self._before + found.iterations)

    def charge(self, iterations: int, seconds: float) -> None:
        """Count what was done elsewhere against the limits."""
        self._before += iterations
        self._spent += seconds

    def tighten(self, share: float) -> None:
        """Go on from where it ended, to that share of the tolerances."""
        self._share *= share
        self._done = None
        if self._inner is not None:
            self._inner.tighten(self._left())
        elif self._saved is not None:
            self._saved = {**self._saved, "passed": 0}  # as `Pdhg.tighten` does

    def close(self) -> None:
        """End the other process, if there is one."""
        if self._process is not None:
            self._spent += self._process.seconds
            self._process.close()
            self._process = None

    # -- going on ---------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return arrays and scalars from which `restore` goes on, bit for bit."""
        state: dict[str, Any] = {
            "spent": self.seconds - self._under_way[1],
            "before": self._before,
            "share": self._share,
            "notes": np.array(self._notes, np.str_),
        }
        if self._inner is None:
            return dict(self._saved or {}) | state
        state |= self._inner.state()
        if self._reduction is not None:
            state["digest"] = self._reduction.digest
        if (pending := self._pending) is not None:
            state |= {f"pending_{n}": getattr(pending, n) for n in _PAIR}
            state |= {"pending_status": pending.status}
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
    ) -> FirstOrder:
        """Return a solve that goes on where `state` was taken."""
        where: Any = {"threads": threads, "clock": clock, "backend": backend}
        solve = cls(program, settings, memory=memory, **where)
        solve._spent, solve._before = float(state["spent"]), int(state["before"])
        solve._share = float(state["share"])
        solve._notes = tuple(str(note) for note in state["notes"])
        if "digest" in state:
            solve._inner, solve._saved = None, state
        elif "x" in state:
            solve._inner = Pdhg.restore(program, solve._left(), state, **where)
        return solve

    # -- presolve and postsolve -------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        """Wait for the other process, and take in what it says."""
        try:
            self._process = self._process or self._start()
            answer = self._process.wait(seconds)
        except ServiceError as exc:
            self._go_without(f"presolve was given up: {exc}")
            return
        if answer is None:
            if self._process.seconds > self._patience():
                self._go_without("presolve was given up: it took too long")
            return
        self.close()
        if self._inner is None:
            self._presolved(answer)
        else:
            self._postsolved(answer)

    def _start(self) -> HighsProcess:
        bounds = self._memory, self._patience()
        if self._pending is None or self._reduction is None:
            return start_presolve(self.program, *bounds)
        x, y = self._pending.x, self._pending.y
        return start_postsolve(self.program, self._reduction, x, y, *bounds)

    def _patience(self) -> float:
        limit = self.settings.time_limit
        return PATIENCE if limit is None else min(PATIENCE, max(1.0, limit / 4))

    def _presolved(self, answer: Mapping[str, HostArray]) -> None:
        """Begin, or go on, with what is left of the program."""
        self._reduction = found = reduction_of(answer)
        saved = self._saved
        if found is None:
            said = str(answer["status"])
            dubious = "nfeasible" in said
            self._go_without(
                "presolve found that there is no solution, without a proof"
                if dubious else ""
            )  # fmt: skip
        elif saved is None:
            self._inner = self._pdhg(found.program)
        elif str(saved["digest"]) != found.digest:
            self._go_without("presolve did other things than before")
        else:
            self._inner = Pdhg.restore(
                found.program, self._left(), saved, norms=self._norms, **self._where
            )
            self._saved = None
            if "pending_status" in saved:
                self._inner.tighten(self._left())
                self._pending = self._pended(saved)

    def _postsolved(self, answer: Mapping[str, HostArray]) -> None:
        """Rule on the solution taken back, and end or go on."""
        pending, self._pending = self._pending, None
        if pending is None or self._inner is None:
            raise RuntimeError("nothing was to be taken back")
        if str(answer["status"]) != "restored":
            self._go_without("a solution could not be taken back through presolve")
            return
        x, y, r, kkt = self._restored(answer)
        status, _, why = self._judge.rule(x, y, r)
        final = pending.status not in SOLVED
        spent = self.iterations == self.settings.max_iterations
        if status is None and not (final or spent) and self._share > _FLOOR:
            self._share *= min(_MOST, max(_LEAST, _AIM / self._judge.excess(kkt)))
            self._inner.tighten(self._left())
            return
        if status is None:
            lost: Status = "iteration_limit" if spent else "numerical_error"
            status = pending.status if final else lost
            why = f"{pending.message}; taken back through presolve, {why}"
        self._end(pending, status, why, (x, y, r), kkt)

    def _restored(
        self, answer: Mapping[str, HostArray]
    ) -> tuple[Vector, Vector, Vector, Kkt]:
        """Return the best of the pairs that came back."""
        lp, judge = self.program, self._judge
        kernels = load(Backend.CPU)
        found = []
        vectors = (answer[name] for name in ("x", "y", "r"))
        for x, y, r in zip(*vectors, strict=True):
            x = np.clip(x, lp.lv, lp.uv)
            y = signed(y, lp.lc, lp.uc)
            nearest = judge.yardstick.reduced_costs(kernels.spmv_t(lp.a, y))
            found += [
                (x, y, costs, judge.measure(x, y, costs))
                for costs in (nearest, signed(r, lp.lv, lp.uv))
            ]
        return min(found, key=lambda pair: judge.excess(pair[3]))

    def _go_without(self, note: str) -> None:
        """Begin on the program itself; what was done so far counts against limits."""
        self.close()
        self.charge(*self._under_way)
        if note:
            self._notes += (note,)
        self._reduction = self._pending = self._saved = None
        self._share = 1.0
        self._inner = self._pdhg(self.program)

    # -- iterations -------------------------------------------------------------------

    @property
    def _norms(self) -> Norms:
        """Those of the program as it was given, for what is iterated on."""
        norms, found = self._judge.yardstick.norms, self._reduction
        return norms._replace(settled=found.program.offset) if found else norms

    def _left(self) -> LpSettings:
        """Return the settings of the iterations: tolerances, and what limits leave."""
        given = self.settings
        limit, seconds = given.max_iterations, given.time_limit
        share = max(self._share, FINEST / (given.eps_rel + given.eps_abs))
        return replace(
            given,
            eps_rel=given.eps_rel * share,
            eps_abs=given.eps_abs * share,
            max_iterations=limit and max(1, limit - self._before),
            time_limit=seconds and max(1e-3, seconds - self._spent),
        )

    def _pdhg(
        self,
        program: LinearProgram,
        x0: HostArray | None = None,
        y0: HostArray | None = None,
    ) -> Pdhg:
        return Pdhg(program, self._left(), x0, y0, norms=self._norms, **self._where)

    def _iterate(self, seconds: float | None) -> None:
        if self._inner is None:
            raise RuntimeError("there is nothing to iterate on yet")
        found = self._inner.step(seconds=seconds)
        if not isinstance(found, LpOutcome):
            return
        if self._reduction is None:
            pair = (found.x, found.y, found.reduced_costs)
            self._end(found, found.status, found.message, pair, found.kkt)
        elif found.ray is not None:
            # It proves something of the reduced program only.
            self._go_without(f"what is left after presolve is {found.status}")
        else:
            self._pending = found

    def _pended(self, saved: Mapping[str, Any]) -> LpOutcome:
        # We wrote it ourselves: it is one of them.
        status: Status = str(saved["pending_status"])  # type: ignore[assignment]
        x, y, r = (np.asarray(saved[f"pending_{name}"]) for name in _PAIR)
        return LpOutcome(status, "pdhg", "", self.iterations, None, x, y, r)

    def _end(
        self,
        found: LpOutcome,
        status: Status,
        message: str,
        pair: tuple[Vector, Vector, Vector],
        kkt: Kkt | None,
    ) -> None:
        facts = self._reduction.facts if self._reduction else None
        if kkt is not None and not all(map(math.isfinite, kkt.to_dict().values())):
            kkt = None  # JSON has no infinity
        extra = found.extra | {"seconds": self.seconds, "presolve": facts}
        self._done = replace(
            found, status=status, message=message, kkt=kkt,
            x=pair[0], y=pair[1], reduced_costs=pair[2],
            iterations=self.iterations, extra=extra,
            notes=self.program.notes + self._notes,
        )  # fmt: skip


def _presolves(settings: LpSettings, program: LinearProgram, *, warm: bool) -> bool:
    """Whether to presolve; a start cannot be taken along."""
    asked = settings.presolve
    if asked and warm:
        raise InvalidInputError(
            "x0 and y0 cannot be taken through presolve; leave one or the other out"
        )
    if asked and not is_installed():
        raise InvalidInputError("this server has no HiGHS, which presolves")
    able = is_installed() and program.a.nnz < 2**31 and math.prod(program.shape) > 0
    return able and not warm and asked is not False
