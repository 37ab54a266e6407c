"""MINRES for symmetric matrices, definite or not."""

from __future__ import annotations

import math
from typing import ClassVar

from nnz_service.algebra.krylov.method import Ended, Method, Op, Steps
from nnz_service.algebra.krylov.vectors import EPS, Vector, dot, norm, zeros_like


class MinRes(Method):
    """Paige and Saunders 1975, preconditioned by a positive definite matrix.

    Their recursion knows the residual in the norm of the preconditioner alone; one more
    vector follows the residual itself, ``r_k = s^2 r_(k-1) - s c phi v_(k+1)``.
    """

    KEPT: ClassVar[tuple[str, ...]] = (
        "r", "before", "last", "y", "w", "w_before",
        "beta", "beta_before", "d_bar", "epsilon", "phi_bar", "cosine", "sine",
    )  # fmt: skip

    def start(self) -> Steps:
        """See `Method`."""
        self.r = yield from self.true_residual()
        self.last = self.r.copy()
        self.before = zeros_like(self.r)
        z = yield Op.PRECONDITION, self.r
        self.y = z.copy()
        self.beta = _root(dot(self.r, z))
        self.phi_bar = self.beta
        self.beta_before = self.d_bar = self.epsilon = self.sine = 0.0
        self.cosine = -1.0
        self.w: Vector = zeros_like(self.r)
        self.w_before: Vector = zeros_like(self.r)

    def iterate(self) -> Steps:
        """See `Method`."""
        if self.beta == 0:
            self._close()
            return
        v: Vector = self.y / self.beta
        product = yield Op.MULTIPLY, v
        q = product.copy()
        # Of the tridiagonal matrix; the first one is what is to be solved for.
        left = self.beta if self.beta_before else 0.0
        if self.beta_before:
            q -= (self.beta / self.beta_before) * self.before
        alpha = dot(v, q)
        q -= (alpha / self.beta) * self.last
        self.before, self.last = self.last, q
        z = yield Op.PRECONDITION, q
        self.y = z.copy()
        self.beta_before, self.beta = self.beta, _root(dot(q, z))
        self._rotate(v, alpha, left)

    def _rotate(self, v: Vector, alpha: float, left: float) -> None:
        """Turn the new column of the tridiagonal matrix and move x along it."""
        epsilon = self.epsilon
        delta = self.cosine * self.d_bar + self.sine * alpha
        g_bar = self.sine * self.d_bar - self.cosine * alpha
        self.epsilon = self.sine * self.beta
        self.d_bar = -self.cosine * self.beta
        gamma = math.hypot(g_bar, self.beta)
        scale = max(abs(alpha), left, abs(delta))
        if gamma <= EPS * scale or gamma == 0:
            self._close()
            return
        c, s = g_bar / gamma, self.beta / gamma
        phi_bar = self.phi_bar
        w: Vector = (v - epsilon * self.w_before - delta * self.w) / gamma
        self.w_before, self.w = self.w, w
        self.x += (c * phi_bar) * w
        self.r *= s * s
        if self.beta:
            self.r -= (s * c * phi_bar / self.beta) * self.last
        self.residual = norm(self.r)
        self.cosine, self.sine, self.phi_bar = c, s, s * phi_bar
        if self.beta <= EPS * scale:
            self._close()

    def _close(self) -> None:
        self.closed = (
            "singular",
            "the Krylov space is exhausted without a solution: the matrix is singular, "
            "or nearly",
        )


def _root(square: float) -> float:
    """Return the norm that a preconditioner makes of a vector."""
    if not math.isfinite(square):
        raise Ended("numerical_error", "a number overflowed or became NaN")
    if square < 0:
        raise Ended("not_spd", "the preconditioner is not positive definite")
    return math.sqrt(square)
