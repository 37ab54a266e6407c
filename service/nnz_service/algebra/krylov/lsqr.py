"""LSQR for least squares, and for rectangular systems."""

from __future__ import annotations

import math
from typing import ClassVar

from nnz_service.algebra.krylov.method import Ended, Method, Op, Steps
from nnz_service.algebra.krylov.vectors import Vector, norm, over, zeros_like

_OPTIMAL = (
    "the least-squares solution is reached: the system has no exact one, "
    "||A'r|| <= rtol ||A|| ||r||"
)


class Lsqr(Method):
    """Paige and Saunders 1982; preconditioned by the scale of the columns.

    Begins anew from its own x, where it bidiagonalises with ``b - A x``. What it calls
    the matrix is the scaled one, ``A D``.
    """

    KEPT: ClassVar[tuple[str, ...]] = (
        "u", "v", "w", "alpha", "rho_bar", "phi_bar",
    )  # fmt: skip

    def start(self) -> Steps:
        """See `Method`; the last of the two criteria is looked at here."""
        self.u = yield from self.true_residual()
        self.phi_bar = self.residual
        if self.residual == 0 or not math.isfinite(self.residual):
            self.v, self.w = zeros_like(self.x), zeros_like(self.x)
            self.alpha = self.rho_bar = 0.0
            return
        self.u /= self.residual
        product = yield Op.TRANSPOSE, self.u
        scaled = yield Op.PRECONDITION, product
        self.alpha = self.rho_bar = norm(scaled)
        if not math.isfinite(self.alpha):
            raise Ended("numerical_error", "a number overflowed or became NaN")
        if self.alpha <= self.settings.rtol * self.norm_a < math.inf:
            raise Ended("converged", _OPTIMAL)
        self.v = scaled / self.alpha if self.alpha else zeros_like(self.x)
        d = yield Op.PRECONDITION, self.v
        self.w = d.copy()

    def iterate(self) -> Steps:
        """See `Method`."""
        if self.alpha == 0:
            self.closed = "breakdown", "the bidiagonalisation came to its end"
            return
        direction = yield Op.PRECONDITION, self.v
        product = yield Op.MULTIPLY, direction
        self.u = product - self.alpha * self.u
        beta = norm(self.u)
        self.u /= beta or 1.0
        back = yield Op.TRANSPOSE, self.u
        scaled = yield Op.PRECONDITION, back
        v: Vector = scaled - beta * self.v
        self.alpha = norm(v)
        self.v = v / (self.alpha or 1.0)
        rho = math.hypot(self.rho_bar, beta)
        c, s = over(self.rho_bar, rho), over(beta, rho)
        theta = s * self.alpha
        self.x += over(c * self.phi_bar, rho) * self.w
        d = yield Op.PRECONDITION, self.v
        self.w = d - over(theta, rho) * self.w
        self.rho_bar = -c * self.alpha
        self.phi_bar *= s
        self.residual = self.phi_bar
        if self.alpha * abs(c) <= self.settings.rtol * self.norm_a or theta == 0:
            self.closed = "breakdown", "rounding errors keep A'r above its target"
