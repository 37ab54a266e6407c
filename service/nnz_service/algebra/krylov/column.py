"""The course of one right-hand side: begin, iterate, verify, end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nnz_service.algebra.krylov.bicgstab import BiCgStab
from nnz_service.algebra.krylov.cg import ConjugateGradients
from nnz_service.algebra.krylov.direct import Direct
from nnz_service.algebra.krylov.gmres import Gmres
from nnz_service.algebra.krylov.lsqr import Lsqr
from nnz_service.algebra.krylov.method import Ended, Method, Steps
from nnz_service.algebra.krylov.minres import MinRes
from nnz_service.algebra.krylov.products import Norms
from nnz_service.algebra.krylov.report import Outcome, finite, measure
from nnz_service.algebra.krylov.vectors import Vector, on_host, safe_norm
from nnz_service.solving import SolveSettings, Status

#: The classes of the methods in `solving.METHODS`.
CLASSES: dict[str, type[Method]] = {
    "cg": ConjugateGradients,
    "bicgstab": BiCgStab,
    "gmres": Gmres,
    "minres": MinRes,
    "lsqr": Lsqr,
    "direct": Direct,
}

#: Times that a recursive residual may turn out false before giving up: each new start
#: gains digits until rounding in ``b - A x`` itself is what is left.
MAX_RESTARTS = 10

#: A new start has helped when the true residual fell below this part of what it was.
GAIN = 0.9


#: A right-hand side below this is solved in other units: squares of it underflow.
SMALL = 2.0**-400

#: An iterate that is so many times further off than where it began is not handed over.
DIVERGED = 1e3


class Column:
    """One right-hand side.

    The method sees both sides over a power of two, which is 1 unless they are tiny: it
    is exact, and so the bits are those of the same system in ordinary units.

    Args:
        b: Right-hand side (m,).
        x: First iterate (n,); holds the last one that was verified, then the answer.
        settings: What was asked for.
        limit: Iterations at most.
    """

    def __init__(
        self, b: Vector, x: Vector, settings: SolveSettings, limit: int
    ) -> None:
        self.b = b
        self.x = x
        self.settings = settings
        self.limit = limit
        self.iterations = 0
        self.outcome: Outcome | None = None
        self.norm_b = safe_norm(b)
        self.target = max(settings.rtol * self.norm_b, settings.atol)
        self._unit = _unit(max(self.norm_b, safe_norm(x)))
        self._is_exact = True  # whether x is what the method has, in our units
        self._method: Method | None = None
        self._restarts = 0
        self._verified = math.inf

    @property
    def residual(self) -> float:
        """By the recursion, in the end measured; infinite before it begins."""
        if self.outcome is not None:
            found = self.outcome.residual
            return math.inf if found is None else found
        if self._method is None:
            return math.inf
        return self._method.residual * self._unit

    def turn(self, norms: Norms) -> Steps:
        """Do one iteration, or find out that it has ended."""
        try:
            if self._method is None:
                self._method = self._made(norms)
                yield from self._method.start()
                self._note(self._method)
                if self._method.residual <= self._goal:
                    raise Ended("converged", "the first iterate is good enough")
            yield from self._method.iterate()
            self.iterations += 1
            yield from self._judge(self._method)
        except Ended as end:
            yield from self.end(end.status, end.message, norms)

    def begin_anew(self) -> None:
        """Go back to the last iterate that was verified."""
        self._method = None

    def end(self, status: Status, message: str, norms: Norms) -> Steps:
        """Take what was reached and measure it."""
        reached = False
        if self._method is not None:
            reached = self._method.residual <= self._goal
            if status != "numerical_error":
                yield from self._method.settle()
            far = self._method.residual > DIVERGED * self._verified
            if not far:
                self._take(self._method.x)
            self._method = None
        figures = yield from measure(self.b, self.x, norms.infinity)
        if status == "converged" and self._is_lost(figures["residual"], reached):
            status, message = "numerical_error", "the solution underflows"
        self.outcome = Outcome(
            status=status, iterations=self.iterations, message=message, **figures
        )

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return JSON types, and what the method keeps."""
        facts = {
            "iterations": self.iterations,
            "restarts": self._restarts,
            "verified": finite(self._verified),
            "unit": self._unit,
            "outcome": None if self.outcome is None else self.outcome.result(),
        }
        return facts, {} if self._method is None else self._method.state()

    def restore(
        self, facts: Mapping[str, Any], kept: Mapping[str, Any], norms: Norms | None
    ) -> None:
        """Go back to where `state` was taken."""
        self.iterations = facts["iterations"]
        self._restarts = facts["restarts"]
        self._unit = facts.get("unit", 1.0)  # older states have none
        found = facts["verified"]
        self._verified = math.inf if found is None else found
        if facts["outcome"] is not None:
            self.outcome = Outcome(**facts["outcome"])
        if kept and norms is not None:
            self._method = self._made(norms)
            self._method.restore(kept)

    def _made(self, norms: Norms) -> Method:
        kind = CLASSES[self.settings.method]
        norm_a = norms.scaled if kind is Lsqr else norms.frobenius
        b = self.b if self._unit == 1 else self.b / self._unit
        return kind(b, self.x / self._unit, self.settings, norm_a, norms.space)

    @property
    def _goal(self) -> float:
        """The target in the units of the method."""
        norm_b = self.norm_b / self._unit
        return max(self.settings.rtol * norm_b, self.settings.atol / self._unit)

    def _take(self, x: Vector) -> None:
        """Take over an iterate of the method, if it is finite."""
        x = on_host(x)
        if np.isfinite(x).all():
            self.x[:] = x * self._unit
            self._is_exact = self._unit == 1 or bool((self.x / self._unit == x).all())

    def _is_lost(self, residual: float | None, reached: bool) -> bool:
        """Whether what converged in the units of the method did not in ours.

        Args:
            residual: Measured in ours.
            reached: Whether it was within the target; least squares need not be.
        """
        if self._unit == 1 or (self._is_exact and not reached):
            return False
        return residual is None or residual > self.target

    def _note(self, method: Method) -> bool:
        """Take in a true residual; return whether much was gained since the last."""
        if not math.isfinite(method.residual):
            raise Ended("numerical_error", "the squares of the residual overflow")
        gained = method.residual < GAIN * self._verified
        self._verified = method.residual
        self._take(method.x)
        return gained

    def _judge(self, method: Method) -> Steps:
        """End when the true residual is small, or when no progress is possible."""
        if not math.isfinite(method.residual):
            raise Ended("numerical_error", "a number overflowed or became NaN")
        closed = method.closed
        if method.residual <= self._goal or closed is not None:
            yield from method.settle()
            yield from method.start()
            gained = self._note(method)
            if method.residual <= self._goal:
                raise Ended("converged", "the residual reached its target")
            if closed is not None and not gained:
                raise Ended(*closed)
            self._restarts += 1
            if closed is None and self._restarts > MAX_RESTARTS:
                raise Ended(
                    "breakdown", "rounding errors keep the residual above its target"
                )
        if self.iterations >= self.limit:
            raise Ended("iteration_limit", f"stopped after {self.limit} iterations")


def _unit(size: float) -> float:
    """Return the power of two at or below a tiny size; 1 for any other, and for 0."""
    if not 0 < size < SMALL:
        return 1.0
    return math.ldexp(1.0, math.frexp(size)[1] - 1)
