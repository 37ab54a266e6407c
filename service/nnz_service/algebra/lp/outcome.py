"""How the solution of a linear program ended, and what may be called optimal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nnz_kernels.api import Kernels
from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import Backend, load
from nnz_service.algebra.lp.kkt import Kkt, Norms, Yardstick
from nnz_service.algebra.lp.model import LinearProgram, Vector
from nnz_service.algebra.lp.settings import LpSettings

Status = Literal[
    "optimal",
    "optimal_relative_only",
    "infeasible",
    "unbounded",
    "iteration_limit",
    "time_limit",
    "numerical_error",
    "cancelled",
]

#: Ends within the tolerances.
SOLVED: tuple[Status, ...] = ("optimal", "optimal_relative_only")

#: Times the tolerance of the gap that the objective may drift.
_DRIFT = 5.0

#: Instead of a tolerance of 0: what is 0 passes it, and nothing is divided by 0.
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class LpOutcome:
    """An answer with what was measured on the program as it was given.

    Args:
        status: Why it ended. ``optimal`` is only what `judge` lets pass;
            ``optimal_relative_only`` holds in relative 2-norms alone: some row or
            reduced cost is off by more than the tolerance allows for its own size.
        method: ``pdhg`` or ``highs``.
        message: One sentence for people.
        iterations: Of the method.
        kkt: Residuals, recomputed; None where there is no pair.
        x: Primal values (n,).
        y: Dual values (m,), signed for the objective to minimize.
        reduced_costs: (n,), as y.
        extra: Further plain numbers of the method.
        ray: Certificate of infeasibility (m,) or of unboundedness (n,).
        notes: What the program was read or taken as.
    """

    status: Status
    method: str
    message: str
    iterations: int
    kkt: Kkt | None
    x: Vector
    y: Vector
    reduced_costs: Vector
    extra: dict[str, Any] = field(default_factory=dict)
    ray: Vector | None = None
    notes: tuple[str, ...] = ()

    def result(self) -> dict[str, Any]:
        """Return everything but the vectors, as JSON types."""
        found: dict[str, Any] = {
            "status": self.status,
            "method": self.method,
            "message": self.message,
            "iterations": self.iterations,
            "notes": list(self.notes),
        }
        return found | self.extra | (self.kkt.to_dict() if self.kkt else {})

    def arrays(self) -> dict[str, HostArray]:
        """Return the vectors."""
        found: dict[str, HostArray] = {
            "x": self.x,
            "y": self.y,
            "reduced_costs": self.reduced_costs,
        }
        return found if self.ray is None else found | {"ray": self.ray}


class Judge:
    """Measures pairs on the program as it was given, and rules on them."""

    def __init__(
        self,
        program: LinearProgram,
        settings: LpSettings,
        norms: Norms | None = None,
    ) -> None:
        self._lp = program
        self._settings = settings
        self.yardstick = Yardstick(program, norms)

    def close_enough(self, kkt: Kkt) -> bool:
        """Whether all three residuals are within the tolerances."""
        return self.excess(kkt) <= 1

    def excess(self, kkt: Kkt) -> float:
        """Return the largest residual over its tolerance; infinite for a NaN."""
        absolute, relative = self._settings.eps_abs, self._settings.eps_rel
        norms = self.yardstick.norms
        over = (
            kkt.primal_residual / (absolute + relative * norms.b or _TINY),
            kkt.dual_residual / (absolute + relative * norms.c or _TINY),
            kkt.gap / (self._gap_tolerance(kkt) or _TINY),
        )
        return max(over) if all(x >= 0 for x in over) else math.inf

    def drifts(self, kkt: Kkt) -> bool:
        """Whether the violations may move the objective by more than its tolerance."""
        return kkt.drift > _DRIFT * self._gap_tolerance(kkt)

    def measure(self, x: Vector, y: Vector, r: Vector) -> Kkt:
        """Return the residuals of a pair, from the matrix as it was given."""
        return self.yardstick.measure(x, self._rows(x), y, self._columns(y), r)

    def rule(self, x: Vector, y: Vector, r: Vector) -> tuple[Status | None, Kkt, str]:
        """Return ``optimal`` or ``optimal_relative_only``, or None when it is neither.

        Also the residuals, and a sentence.
        """
        kkt = self.measure(x, y, r)
        if not self.close_enough(kkt):
            return None, kkt, "the residuals are above the tolerances"
        if why := self._uneven(x, y, r):
            return "optimal_relative_only", kkt, why
        return "optimal", kkt, "all residuals are within the tolerances"

    def _gap_tolerance(self, kkt: Kkt) -> float:
        return self._settings.eps_abs + self._settings.eps_rel * kkt.size

    def _uneven(self, x: Vector, y: Vector, r: Vector) -> str:
        """Return what is too far off for its own size; empty when nothing is."""
        lp = self._lp
        most = self._settings.eps_abs + self._settings.eps_rel
        ax = self._rows(x)
        bound = np.clip(ax, lp.lc, lp.uc)
        rows = np.abs(ax - bound) / (1 + np.abs(bound))
        lost = np.abs(lp.sign * lp.c - self._columns(y) - r) / (1 + np.abs(lp.c))
        for name, off in (("row", rows), ("reduced cost", lost)):
            if off.size and off.max() > most:
                at = int(np.argmax(off))
                return f"{name} {at} is off by {off[at]:.2e} of its own size"
        return ""

    def _rows(self, x: Vector) -> Vector:
        return _cpu().spmv(self._lp.a, x)

    def _columns(self, y: Vector) -> Vector:
        return _cpu().spmv_t(self._lp.a, y)


def _cpu() -> Kernels[HostArray]:
    return load(Backend.CPU)
