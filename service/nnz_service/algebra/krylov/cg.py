"""Conjugate gradients for symmetric positive definite matrices."""

from __future__ import annotations

import math
from typing import ClassVar

from nnz_service.algebra.krylov.method import Ended, Method, Op, Steps
from nnz_service.algebra.krylov.vectors import dot, norm, over


class ConjugateGradients(Method):
    """Hestenes and Stiefel 1952, preconditioned; a curvature that is not positive ends
    it, since no symmetric positive definite matrix has one.
    """

    KEPT: ClassVar[tuple[str, ...]] = ("r", "p", "rho")

    def start(self) -> Steps:
        """See `Method`."""
        self.r = yield from self.true_residual()
        z = yield Op.PRECONDITION, self.r
        self.p = z.copy()
        self.rho = dot(self.r, z)

    def iterate(self) -> Steps:
        """See `Method`."""
        q = yield Op.MULTIPLY, self.p
        curvature = dot(self.p, q)
        if not math.isfinite(curvature) or not math.isfinite(self.rho):
            raise Ended("numerical_error", "a number overflowed or became NaN")
        if self.rho == 0:
            self.closed = "breakdown", "the search direction vanished"
            return
        if curvature <= 0:
            raise Ended("not_spd", f"p'Ap = {curvature:.3g} is not positive")
        alpha = self.rho / curvature
        self.x += alpha * self.p
        self.r -= alpha * q
        self.residual = norm(self.r)
        z = yield Op.PRECONDITION, self.r
        rho = dot(self.r, z)
        self.p *= over(rho, self.rho)
        self.p += z
        self.rho = rho
