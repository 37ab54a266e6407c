"""A factorisation and iterative refinement."""

from __future__ import annotations

from typing import ClassVar

from nnz_service.algebra.krylov.method import Method, Op, Steps
from nnz_service.algebra.krylov.vectors import norm


class Direct(Method):
    """Solve with the factors of A, then refine with the residual (Wilkinson 1963).

    The factors stand where other methods have a preconditioner.
    """

    KEPT: ClassVar[tuple[str, ...]] = ("r",)

    def start(self) -> Steps:
        """See `Method`."""
        self.r = yield from self.true_residual()

    def iterate(self) -> Steps:
        """See `Method`; a step that gains nothing is not taken."""
        step = yield Op.PRECONDITION, self.r
        x = self.x + step
        product = yield Op.MULTIPLY, x
        r = self.b - product
        residual = norm(r)
        if not residual < self.residual:
            self.closed = (
                "numerical_error",
                "refinement gains no more digits: the matrix is nearly singular, or "
                "the target is below rounding errors",
            )
            return
        self.x, self.r, self.residual = x, r, residual
