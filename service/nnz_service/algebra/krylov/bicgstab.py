"""BiCGSTAB for general square matrices."""

from __future__ import annotations

from typing import ClassVar

from nnz_service.algebra.krylov.method import Method, Op, Steps
from nnz_service.algebra.krylov.vectors import EPS, Vector, dot, norm


class BiCgStab(Method):
    """van der Vorst 1992, preconditioned from the right, so that its residual is that
    of the system. Where a denominator vanishes it begins anew with another shadow.
    """

    KEPT: ClassVar[tuple[str, ...]] = ("r", "p", "shadow", "rho")

    def start(self) -> Steps:
        """See `Method`."""
        self.r = yield from self.true_residual()
        self.p = self.r.copy()
        self.shadow = self.r.copy()
        self.rho = dot(self.r, self.r)

    def iterate(self) -> Steps:
        """See `Method`."""
        p_hat = yield Op.PRECONDITION, self.p
        v = yield Op.MULTIPLY, p_hat
        along = dot(self.shadow, v)
        if abs(along) <= EPS * norm(self.shadow) * norm(v):
            self.closed = "breakdown", "the shadow residual is orthogonal to A p"
            return
        alpha = self.rho / along
        s: Vector = self.r - alpha * v
        s_hat = yield Op.PRECONDITION, s
        t = yield Op.MULTIPLY, s_hat
        length = dot(t, t)
        omega = dot(t, s) / length if length else 0.0
        self.x += alpha * p_hat + omega * s_hat
        self.r = s - omega * t
        self.residual = norm(self.r)
        rho = dot(self.shadow, self.r)
        if omega == 0:
            self.closed = "breakdown", "the stabilising step has length 0"
        elif abs(rho) <= EPS * norm(self.shadow) * self.residual:
            self.closed = "breakdown", "the shadow residual is orthogonal to r"
        else:
            beta = (rho / self.rho) * (alpha / omega)
            self.p = self.r + beta * (self.p - omega * v)
            self.rho = rho
