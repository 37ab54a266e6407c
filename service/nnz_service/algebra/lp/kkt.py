"""How far a primal-dual pair is from optimal, in the units of the user."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from nnz_service.algebra.lp.model import LinearProgram, Vector
from nnz_service.algebra.lp.scaling import dot, norm, norm_of_bounds


@dataclass(frozen=True, slots=True)
class Kkt:
    """Residuals of the conditions of Karush, Kuhn and Tucker.

    Args:
        objective: ``c'x + offset``.
        dual_objective: What the dual pair proves, as far as it is feasible.
        gap: ``|objective - dual_objective|``.
        relative_gap: The same over 1 and the objectives, both without the offset:
            ``1 + |c'x| + |dual_objective - offset|``.
        primal_residual: 2-norm of the violations of rows and variables.
        relative_primal_residual: The same over ``1 + ||bounds of rows||``.
        dual_residual: 2-norm of ``c - A'y - r``, with what y and r hold for bounds
            that are not there.
        relative_dual_residual: The same over ``1 + ||c||``.
        max_primal_violation: The largest violation of a row or a variable.
        max_dual_violation: The largest entry of ``c - A'y - r``.
        size: Of the objectives without the offset, which a gap is compared with.
        drift: What the violations are worth at the prices of this pair,
            ``|y'(Ax - rows) + r'(x - box)| + |x'(c - A'y - r)|``: the objective is off
            by as much, to first order, though primal and dual may agree.
    """

    objective: float
    dual_objective: float
    gap: float
    relative_gap: float
    primal_residual: float
    relative_primal_residual: float
    dual_residual: float
    relative_dual_residual: float
    max_primal_violation: float
    max_dual_violation: float
    size: float
    drift: float

    def to_dict(self) -> dict[str, Any]:
        """Return what is told of it, as JSON types."""
        found = asdict(self)
        del found["size"], found["drift"]
        return found

    @property
    def worst(self) -> float:
        """The largest of the three relative measures."""
        return max(
            self.relative_gap,
            self.relative_primal_residual,
            self.relative_dual_residual,
        )


class Norms(NamedTuple):
    """What residuals are compared with.

    Args:
        c: 2-norm of the costs.
        b: 2-norm of the row bounds.
        settled: Part of ``c'x`` that presolve knew and made an offset.
    """

    c: float
    b: float
    settled: float = 0.0


class Yardstick:
    """Measures pairs of one program; the norms of its data are taken once.

    Args:
        program: The program.
        norms: Those of another one, which this one stands for; None for its own.
    """

    def __init__(self, program: LinearProgram, norms: Norms | None = None) -> None:
        self._lp = program
        self._c = program.sign * program.c
        self.norms = norms or Norms(
            norm(program.c), norm_of_bounds(program.lc, program.uc)
        )

    def measure(self, x: Vector, ax: Vector, y: Vector, aty: Vector, r: Vector) -> Kkt:
        """Return the residuals of a pair.

        Args:
            x: Primal values (n,).
            ax: ``A x`` (m,).
            y: Dual values (m,) of the program to minimize: positive holds a row up.
            aty: ``A' y`` (n,).
            r: Reduced costs (n,): positive where a lower bound holds.
        """
        lp = self._lp
        rows = ax - np.clip(ax, lp.lc, lp.uc)
        box = x - np.clip(x, lp.lv, lp.uv)
        # A multiplier of a bound that is not there proves nothing: it is all error.
        lost = self._c - aty - signed(r, lp.lv, lp.uv)
        false = y - signed(y, lp.lc, lp.uc)
        primal = dot(self._c, x)
        dual = support(y, lp.lc, lp.uc) + support(r, lp.lv, lp.uv)
        gap = abs(primal - dual)
        own = primal + self.norms.settled, dual + self.norms.settled
        at, below = primal + lp.sign * lp.offset, dual + lp.sign * lp.offset
        violation = float(np.hypot(norm(rows), norm(box)))
        residual = float(np.hypot(norm(lost), norm(false)))
        return Kkt(
            objective=lp.sign * at,
            dual_objective=lp.sign * below,
            gap=gap,
            relative_gap=gap / (1 + abs(own[0]) + abs(own[1])),
            primal_residual=violation,
            relative_primal_residual=violation / (1 + self.norms.b),
            dual_residual=residual,
            relative_dual_residual=residual / (1 + self.norms.c),
            max_primal_violation=max(_most(rows), _most(box)),
            max_dual_violation=max(_most(lost), _most(false)),
            size=abs(own[0]) + abs(own[1]),
            drift=abs(dot(y, rows) + dot(r, box)) + abs(dot(x, lost)),
        )

    def primal(self, x: Vector, ax: Vector) -> float:
        """Return the relative primal residual of x, which is within its bounds."""
        rows = ax - np.clip(ax, self._lp.lc, self._lp.uc)
        return norm(rows) / (1 + self.norms.b)

    def dual(self, y: Vector, aty: Vector, r: Vector) -> float:
        """Return the relative dual residual of y and r, which have bounds to hold."""
        return norm(self._c - aty - r) / (1 + self.norms.c)

    def reduced_costs(self, aty: Vector) -> Vector:
        """Return the reduced costs that are nearest to ``c - A'y`` and have bounds."""
        g = self._c - aty
        return fit(g, self._lp.lv, self._lp.uv)


def fit(g: Vector, low: Vector, high: Vector) -> Vector:
    """Return multipliers where they have a bound to hold, and zero elsewhere."""
    up = np.where(np.isfinite(low), np.maximum(g, 0.0), 0.0)
    down = np.where(np.isfinite(high), np.minimum(g, 0.0), 0.0)
    return up + down


def signed(y: Vector, low: Vector, high: Vector) -> Vector:
    """Return multipliers without those that a missing bound forbids."""
    up = np.where(np.isinf(low), np.minimum(y, 0.0), y)
    return np.where(np.isinf(high), np.maximum(up, 0.0), up)


def support(y: Vector, low: Vector, high: Vector) -> float:
    """Return ``min z'y`` over the box, infinite bounds left out."""
    down = np.where(np.isfinite(low), low, 0.0)
    up = np.where(np.isfinite(high), high, 0.0)
    return dot(y, np.where(y > 0, down, up))


def _most(x: Vector) -> float:
    return float(np.abs(x).max(initial=0.0))
