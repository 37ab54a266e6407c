"""How a solve stands and how it ended, every figure from its definition."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnz_service.algebra.krylov.method import Op, Request
from nnz_service.algebra.krylov.vectors import Vector, over, safe_norm
from nnz_service.solving import Status


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an unfinished solve stands: its right-hand side that is furthest off.

    Args:
        iterations: Of the one that has done most.
        residual: By the recursion.
        target: What it must come down to.
        relative_residual: The same over ``||b||``.
        columns: Right-hand sides.
        ended: Those that have ended.
        phase: ``prepare`` while the preconditioner is made, then ``iterate``.
    """

    iterations: int
    residual: float | None
    target: float
    relative_residual: float | None
    columns: int
    ended: int
    phase: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one right-hand side ended; figures beyond float64 are None.

    Args:
        status: Why it ended.
        iterations: That it took.
        residual: ``||b - A x||`` in the 2-norm.
        relative_residual: The same over ``||b||``.
        backward_error: Normwise, ``||r|| / (||A|| ||x|| + ||b||)``, infinity norms.
        componentwise_backward_error: ``max |r_i| / (|A| |x| + |b|)_i``.
        message: One sentence for people.
    """

    status: Status
    iterations: int
    residual: float | None
    relative_residual: float | None
    backward_error: float | None
    componentwise_backward_error: float | None
    message: str

    def result(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Done:
    """How a solve ended.

    Args:
        x: (n,) or (n, k), as b was; the last iterates, always finite.
        outcomes: One a right-hand side.
        method: That was used.
        preconditioner: That was used.
    """

    x: Vector
    outcomes: tuple[Outcome, ...]
    method: str
    preconditioner: str

    @property
    def status(self) -> Status:
        """Of the right-hand side that did worst: the first that did not converge."""
        return self._worst.status

    @property
    def _worst(self) -> Outcome:
        bad = [o for o in self.outcomes if o.status != "converged"]
        return (bad or self.outcomes)[0]

    def result(self) -> dict[str, Any]:
        """Return everything but x, as JSON types: the worst of each figure."""
        found: dict[str, Any] = {
            name: _largest([getattr(o, name) for o in self.outcomes])
            for name in Outcome.__slots__
            if name not in ("status", "message")
        }
        found |= {"status": self.status, "message": self._worst.message}
        found |= {"method": self.method, "preconditioner": self.preconditioner}
        if self.x.ndim == 2:
            found["columns"] = [outcome.result() for outcome in self.outcomes]
        return found


def measure(
    b: Vector, x: Vector, norm_a: float
) -> Generator[Request, Vector, dict[str, float | None]]:
    """Return residual and backward errors (LAPACK's BERR is the componentwise one).

    Args:
        b: Right-hand side.
        x: What is to be judged.
        norm_a: Infinity norm of the matrix.
    """
    product = yield Op.MULTIPLY, x
    reach = yield Op.MAGNITUDE, np.abs(x)
    r = b - product
    residual = safe_norm(r)
    largest = float(np.abs(x).max(initial=0.0))
    scale = norm_a * largest + float(np.abs(b).max(initial=0.0))
    scales = reach + np.abs(b)
    ratios = np.abs(r) / np.where(scales == 0, 1.0, scales)
    return {
        "residual": finite(residual),
        "relative_residual": finite(over(residual, safe_norm(b))),
        "backward_error": finite(over(float(np.abs(r).max(initial=0.0)), scale)),
        "componentwise_backward_error": finite(float(ratios.max(initial=0.0))),
    }


def finite(value: float) -> float | None:
    """Return a number that JSON has, or None."""
    return value if math.isfinite(value) else None


def _largest(values: Sequence[Any]) -> Any:
    return None if None in values else max(values)
