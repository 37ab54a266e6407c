"""GMRES(m) for general square matrices."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from nnz_service.algebra.krylov.method import Method, Op, Steps
from nnz_service.algebra.krylov.vectors import (
    EPS,
    Vector,
    dot,
    norm,
    project,
    zeros_like,
)

#: What is smaller than this part of ``||A|| ||z||`` is the rounding error of ``A z``.
NOISE = 10 * EPS


class Gmres(Method):
    """Saad and Schultz 1986 with Givens rotations, restarted.

    Preconditioned from the right, so that the residual that it minimises is that of the
    system; x moves only when a cycle ends.
    """

    KEPT: ClassVar[tuple[str, ...]] = (
        "basis", "upper", "rotations", "right", "used",
    )  # fmt: skip
    ROWS: ClassVar[tuple[str, ...]] = ("basis",)
    SMALL: ClassVar[tuple[str, ...]] = ("upper", "rotations", "right")

    def start(self) -> Steps:
        """See `Method`."""
        r = yield from self.true_residual()
        m = min(self.settings.restart, max(1, r.size))
        self.basis = self.space.rows(m + 1, r.size)
        self.upper = np.zeros((m, m))
        self.rotations = np.zeros((m, 2))
        self.right = np.zeros(m + 1)
        self.right[0] = self.residual
        self.used = 0
        if self.residual > 0:
            self.basis[0] = r / self.residual

    def iterate(self) -> Steps:
        """See `Method`."""
        j = self.used
        z = yield Op.PRECONDITION, self.basis[j]
        product = yield Op.MULTIPLY, z
        w = product.copy()
        rounding = NOISE * self.norm_a * norm(z)
        column = np.zeros(j + 2)
        column[: j + 1] = project(self.basis, j + 1, w)
        rest = norm(w)
        column[j + 1] = 0.0 if rest <= rounding else rest
        self._rotate(column, rounding)
        if column[j + 1] == 0:
            self.closed = (
                "singular",
                "the Krylov space is exhausted without a solution: the matrix is "
                "singular, or nearly",
            )
            return
        self.basis[j + 1] = w / rest
        if self.used == len(self.rotations):
            yield from self.settle()
            yield from self.start()

    def settle(self) -> Steps:
        """See `Method`; the last coefficients come first."""
        k = self.used
        if k == 0:
            return
        y = self._coefficients(k)
        self.used = 0
        update = zeros_like(self.x)
        for i in range(k):
            update += y[i] * self.basis[i]
        step = yield Op.PRECONDITION, update
        self.x += step

    def _rotate(self, column: Vector, rounding: float) -> None:
        """Append a column to the triangle and turn the right-hand side with it."""
        j = self.used
        for i, (c, s) in enumerate(self.rotations[:j]):
            a, b = column[i], column[i + 1]
            column[i], column[i + 1] = c * a + s * b, c * b - s * a
        below = float(column[j + 1])
        size = math.hypot(column[j], below)
        c, s = (column[j] / size, below / size) if size else (1.0, 0.0)
        self.rotations[j] = c, s
        self.upper[:j, j] = column[:j]
        self.upper[j, j] = size
        turned = self.right[j]
        self.right[j], self.right[j + 1] = c * turned, -s * turned
        self.used = j + 1
        if size <= rounding:  # it adds nothing but rounding: leave it out
            self.used = j
        else:
            self.residual = abs(float(self.right[j + 1]))

    def _coefficients(self, k: int) -> Vector:
        """Solve the small triangle."""
        y = np.zeros(k)
        for i in reversed(range(k)):
            known = dot(self.upper[i, i + 1 : k], y[i + 1 :])
            y[i] = (self.right[i] - known) / self.upper[i, i]
        return y
