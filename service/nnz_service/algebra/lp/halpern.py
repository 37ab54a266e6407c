"""Restarted, reflected Halpern iterations of PDHG on a scaled program.

Lu, Yang, "Restarted Halpern PDHG for linear programming", arXiv 2407.16144, in the form
of cuPDLPx (arXiv 2507.14051). When to end is the caller's to say.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnz_kernels.api import Kernels
from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import Backend, load, load_saddle
from nnz_kernels.formats import Csr
from nnz_kernels.saddle import SaddleState
from nnz_service.algebra.lp.kkt import signed
from nnz_service.algebra.lp.model import Vector
from nnz_service.algebra.lp.restarts import Restarts
from nnz_service.algebra.lp.scaling import Scaled, dot, norm
from nnz_service.algebra.lp.spectrum import spectral_norm

#: Iterations between two looks at the residuals; a look costs about three iterations.
CHECK = 40

#: Seconds of one call of the kernel at most, as far as can be foreseen.
CALL = 0.01

_STEP = 0.998  # of the reciprocal norm of the matrix: below 1, it converges
_ITERATES = ("x", "y", "x0", "y0")


def step_of(scaled: Scaled) -> float:
    """Return the step size with which iterations on a program converge."""
    return _STEP / spectral_norm(scaled.problem.a, scaled.problem.at)


class Halpern:
    """Where the iterations on one program stand.

    Args:
        scaled: The program.
        step: See `step_of`.
        x: Where to start (n,), in the units of the user, as all arguments.
        y: Dual values to start with (m,).
        threads: How many threads an iteration may use; None means all.
        clock: Seconds that never go back.
        backend: Where iterations run.
    """

    def __init__(
        self,
        scaled: Scaled,
        step: float,
        x: Vector,
        y: Vector,
        *,
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        backend: Backend = Backend.CPU,
    ) -> None:
        self.scaled, self._step = scaled, step
        self._threads, self._clock = threads, clock
        self._kernels: Kernels[HostArray] = load(Backend.CPU)
        self._iterate = load_saddle(backend).halpern_pdhg
        self.restarts = Restarts()
        self._rate = 0.0  # seconds an iteration, measured
        self.at = self._state_at(x, y)

    def _state_at(self, x: Vector, y: Vector) -> SaddleState[HostArray]:
        problem = self.scaled.problem
        x = np.clip(self.scaled.from_x(x), problem.lv, problem.uv)
        y = signed(self.scaled.from_y(y), problem.lc, problem.uc)
        rows, columns = problem.a.shape
        sizes = (columns, rows, columns, columns, rows, columns)
        room = (np.zeros(size) for size in sizes)
        return SaddleState(x, y, x.copy(), y.copy(), *room)

    def advance(self, limit: int | None = None) -> bool:
        """Do one call of the kernel; return whether it is time for a look.

        Args:
            limit: Iterations, in all, after which it is time in any case.
        """
        restarts = self.restarts
        count = CHECK - restarts.total % CHECK
        if restarts.inner == 0:
            count = 1
        elif self._rate > 0:
            count = max(1, min(count, int(CALL / self._rate)))
        if limit is not None:
            count = min(count, limit - restarts.total)
        began = self._clock()
        self._iterate(
            self.scaled.problem, self.at,
            self._step / restarts.weight, self._step * restarts.weight,
            restarts.inner, count, threads=self._threads,
        )  # fmt: skip
        self._rate = (self._clock() - began) / count
        restarts.inner += count
        restarts.total += count
        if restarts.inner == 1:
            restarts.first = self.fixed_point_error()
        return restarts.total % CHECK == 0 or restarts.total == limit

    def fixed_point_error(self) -> float:
        """Return ``||z - T(z)||`` of the last iteration in the metric of the method."""
        at, weight = self.at, self.restarts.weight
        cross = dot(self.product(self.scaled.problem.at, at.dy), at.dx)
        squared = weight * dot(at.dx, at.dx) + dot(at.dy, at.dy) / weight
        return math.sqrt(max(0.0, squared + 2 * self._step * cross))

    def restart(self, residuals: tuple[float, float]) -> None:
        """Move the anchor to where the iterations are.

        Args:
            residuals: Relative primal and dual residual.
        """
        at = self.at
        moved = norm(at.xh - at.x0), norm(at.yh - at.y0)
        self.restarts.restart(moved, residuals)
        for old, new in ((at.x0, at.xh), (at.y0, at.yh)):
            old[:] = new
        at.x[:], at.y[:] = at.xh, at.yh

    def product(self, a: Csr[HostArray], x: Vector) -> Vector:
        """Return ``a x``."""
        return self._kernels.spmv(a, x, threads=self._threads)

    def state(self) -> dict[str, Any]:
        """Return arrays and scalars from which `resume` goes on, bit for bit."""
        vectors = {name: getattr(self.at, name).copy() for name in _ITERATES}
        return vectors | self.restarts.state()

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        for name in _ITERATES:
            getattr(self.at, name)[:] = state[name]
        self.restarts = Restarts.restore(state)
