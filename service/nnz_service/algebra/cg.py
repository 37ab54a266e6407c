"""Conjugate gradients as a resumable state machine.

Hestenes and Stiefel 1952, preconditioned, in float64 whatever the matrix holds. The
recursive residual drifts from the true one, so convergence is declared only on a
residual recomputed from the definition, ``b - A x``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidInputError, InvalidMatrixError

Vector = npt.NDArray[np.float64]
Status = Literal["converged", "iteration_limit", "breakdown", "not_spd", "cancelled"]

PRECONDITIONERS = ("none", "jacobi")

#: Times that a converged recursive residual may turn out false before giving up: each
#: restart gains digits until rounding in ``b - A x`` itself is what is left.
MAX_RESTARTS = 10

#: Relative difference of ``u'Aw`` and ``w'Au`` that still counts as symmetric.
ASYMMETRY = 1e-6


@dataclass(frozen=True, slots=True)
class CgSettings:
    """What a solve is asked for.

    Args:
        rtol: Converged when ``||b - A x|| <= max(rtol * ||b||, atol)``, 2-norms.
        atol: See rtol.
        maxiter: Iterations at most; None means 10 n.
        preconditioner: ``none`` or ``jacobi`` (division by the diagonal).
    """

    rtol: float = 1e-5
    atol: float = 0.0
    maxiter: int | None = None
    preconditioner: str = "none"

    def check(self) -> None:
        """Raise InvalidInputError when a setting makes no sense."""
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            real = isinstance(value, int | float) and not isinstance(value, bool)
            if not real or not 0 <= value < np.inf:
                raise InvalidInputError(f"{name} is {value!r}, but must be 0 or more")
        limit = self.maxiter
        if limit is not None and (
            not isinstance(limit, int) or isinstance(limit, bool) or limit < 1
        ):
            raise InvalidInputError(f"maxiter is {limit!r}, but must be 1 or more")
        if self.preconditioner not in PRECONDITIONERS:
            raise InvalidInputError(
                f"preconditioner is {self.preconditioner!r}, but must be one of "
                f"{', '.join(PRECONDITIONERS)}"
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an unfinished solve stands; residual is the recursive one."""

    iterations: int
    residual: float
    target: float
    relative_residual: float


@dataclass(frozen=True, slots=True)
class Done:
    """How a solve ended; every residual is recomputed from the definition.

    Args:
        status: Why it ended.
        x: The last iterate, float64 (n,).
        iterations: Products with the matrix that moved x.
        residual: ``||b - A x||`` in the 2-norm.
        relative_residual: The same over ``||b||``.
        backward_error: Normwise, ``||r|| / (||A|| ||x|| + ||b||)``, infinity norms.
        componentwise_backward_error: ``max |r_i| / (|A| |x| + |b|)_i``.
        message: One sentence for people.
    """

    status: Status
    x: Vector
    iterations: int
    residual: float
    relative_residual: float
    backward_error: float
    componentwise_backward_error: float
    message: str

    def result(self) -> dict[str, Any]:
        """Return everything but x, as JSON types."""
        names = [name for name in self.__slots__ if name != "x"]
        return {name: getattr(self, name) for name in names}


class ConjugateGradients:
    """Solve ``A x = b`` for a symmetric positive definite A.

    Args:
        operator: The matrix, (n, n).
        b: Right-hand side (n,), finite.
        x0: First iterate (n,); zero by default.
        settings: Tolerances, limit, preconditioner.
        clock: Seconds that never go back.

    Raises:
        InvalidMatrixError: The matrix is not square, or not finite.
        InvalidInputError: b, x0 or a setting does not fit.
    """

    def __init__(
        self,
        operator: MatrixOperator,
        b: HostArray,
        x0: HostArray | None = None,
        settings: CgSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or CgSettings()
        self.settings.check()
        self._a = _in_float64(operator)
        self._clock = clock
        n = self._a.shape[0]
        self.b = _vector("b", b, n)
        self.x = np.zeros(n) if x0 is None else _vector("x0", x0, n)
        self.iterations = 0
        self._restarts = 0
        with _quiet():
            self._norm_b = _norm(self.b)
        self.target = max(self.settings.rtol * self._norm_b, self.settings.atol)
        self._diagonal = _diagonal(self._a.matrix) if self._jacobi else None
        self._done: Done | None = None
        with _quiet():
            self._start()

    @property
    def _jacobi(self) -> bool:
        return self.settings.preconditioner == "jacobi"

    @property
    def limit(self) -> int:
        """Iterations at most."""
        return self.settings.maxiter or max(1, 10 * self.b.size)

    def step(
        self, *, seconds: float | None = None, iterations: int | None = None
    ) -> Progress | Done:
        """Iterate until it ends or the budget is spent; at least one iteration.

        Args:
            seconds: Time to use; it is looked at after each iteration.
            iterations: Iterations to do.
        """
        until = None if seconds is None else self._clock() + seconds
        did = 0
        while self._done is None:
            with _quiet():
                self._iterate()
            did += 1
            spent = until is not None and self._clock() >= until
            if spent or did == iterations:
                break
        return self._done or self.progress()

    def progress(self) -> Progress:
        """Return where the solve stands."""
        residual = _norm(self._r)
        return Progress(
            self.iterations, residual, self.target, _over(residual, self._norm_b)
        )

    def cancel(self) -> Done:
        """End the solve where it stands."""
        if self._done is not None:
            return self._done
        with _quiet():
            return self._end("cancelled", "cancelled by the caller")

    def state(self) -> dict[str, Any]:
        """Return arrays and scalars from which `restore` goes on, bit for bit."""
        return {
            "b": self.b,
            "x": self.x.copy(),
            "r": self._r.copy(),
            "p": self._p.copy(),
            "rho": self._rho,
            "iterations": self.iterations,
            "restarts": self._restarts,
            "rtol": self.settings.rtol,
            "atol": self.settings.atol,
            "maxiter": self.limit,
            "preconditioner": self.settings.preconditioner,
        }

    @classmethod
    def restore(
        cls,
        operator: MatrixOperator,
        state: Mapping[str, Any],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> ConjugateGradients:
        """Return a solve that goes on where `state` was taken."""
        settings = CgSettings(
            float(state["rtol"]),
            float(state["atol"]),
            int(state["maxiter"]),
            str(state["preconditioner"]),
        )
        solve = cls(operator, state["b"], state["x"], settings, clock=clock)
        solve._r = np.array(state["r"], np.float64)
        solve._p = np.array(state["p"], np.float64)
        solve._rho = float(state["rho"])
        solve.iterations = int(state["iterations"])
        solve._restarts = int(state["restarts"])
        solve._done = None  # the recursion decides, as it would have without a pause
        return solve

    def _start(self) -> None:
        """Set up the first direction; end at once where there is nothing to do."""
        self._restart()
        if self._diagonal is not None and not (self._diagonal > 0).all():
            at = int(np.argmin(self._diagonal > 0))
            self._end("not_spd", f"the diagonal entry {at} is not positive")
        elif not np.isfinite(self.target) or not np.isfinite(self._rho):
            self._end("breakdown", "the squares of the right-hand side overflow")
        elif not _looks_symmetric(self._a):
            self._end("not_spd", "the matrix is not symmetric (probed by vectors)")
        elif _norm(self._r) <= self.target:
            self._end("converged", "the first iterate is good enough")

    def _restart(self) -> None:
        """Take the true residual and the steepest direction."""
        self._r = self.b - self._a.spmv(self.x)
        self._p = self._preconditioned(self._r).copy()
        self._rho = _dot(self._r, self._p)

    def _preconditioned(self, r: Vector) -> Vector:
        return r if self._diagonal is None else r / self._diagonal

    def _iterate(self) -> None:
        q = self._a.spmv(self._p)
        curvature = _dot(self._p, q)
        if not np.isfinite(curvature) or not np.isfinite(self._rho):
            self._end("breakdown", "a number overflowed or became NaN")
            return
        if curvature <= 0:
            self._end("not_spd", f"p'Ap = {curvature:.3g} is not positive")
            return
        alpha = self._rho / curvature
        self.x += alpha * self._p
        q *= alpha
        self._r -= q
        self.iterations += 1
        z = self._preconditioned(self._r)
        rho = _dot(self._r, z)
        self._p *= _over(rho, self._rho)
        self._p += z
        self._rho = rho
        self._judge()

    def _judge(self) -> None:
        """End when the true residual is small, or when no progress is possible."""
        if _norm(self._r) <= self.target:
            self._restart()
            if _norm(self._r) <= self.target:
                self._end("converged", "the residual reached its target")
                return
            self._restarts += 1
        if self._restarts > MAX_RESTARTS or self._rho == 0:
            self._end("breakdown", "rounding errors keep the residual above its target")
        elif self.iterations >= self.limit:
            self._end("iteration_limit", f"stopped after {self.limit} iterations")

    def _end(self, status: Status, message: str) -> Done:
        r = self.b - self._a.spmv(self.x)
        residual = _norm(r)
        normwise, componentwise = _backward_errors(self._a, self.x, self.b, r)
        relative = _over(residual, self._norm_b)
        self._done = Done(
            status, self.x, self.iterations, residual, relative, normwise,
            componentwise, message,
        )  # fmt: skip
        return self._done


def _quiet() -> np.errstate:
    """Let numbers overflow without a warning: a status tells of it."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


def _in_float64(operator: MatrixOperator) -> MatrixOperator:
    a = operator.matrix
    if a.shape[0] != a.shape[1]:
        raise InvalidMatrixError(
            f"the matrix has shape {list(a.shape)}, but must be square"
        )
    if not np.isfinite(a.data).all():
        raise InvalidMatrixError("the matrix holds a NaN or an infinity")
    if a.data.dtype == np.float64:
        return operator
    wide = replace(a, data=a.data.astype(np.float64))
    return operator.with_matrix(wide)


def _vector(name: str, x: HostArray, n: int) -> Vector:
    if x.shape != (n,) or x.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"{name} is {x.dtype} of shape {list(x.shape)}, but must be real of "
            f"shape [{n}]"
        )
    out = np.array(x, np.float64)
    if not np.isfinite(out).all():
        at = int(np.argmin(np.isfinite(out)))
        raise InvalidInputError(f"{name}[{at}] is {out[at]}, but must be finite")
    return out


def _diagonal(a: Csr[HostArray]) -> Vector:
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    on = rows == a.indices
    out: Vector = np.zeros(a.shape[0])
    np.add.at(out, rows[on], a.data[on])
    return out


def _looks_symmetric(a: MatrixOperator) -> bool:
    """Compare ``u'Aw`` with ``w'Au`` for fixed random vectors."""
    rng = np.random.default_rng(0)
    u, w = rng.standard_normal((2, a.shape[0]))
    au, aw = a.spmv(u), a.spmv(w)
    scale = _norm(u) * _norm(aw) + _norm(w) * _norm(au)
    return abs(_dot(u, aw) - _dot(w, au)) <= ASYMMETRY * scale


def _backward_errors(
    a: MatrixOperator, x: Vector, b: Vector, r: Vector
) -> tuple[float, float]:
    """Return the normwise and the componentwise backward error (LAPACK's BERR)."""
    if b.size == 0:
        return 0.0, 0.0
    magnitude = a.with_matrix(replace(a.matrix, data=np.abs(a.matrix.data)))
    norm_a = float(magnitude.spmv(np.ones(b.size)).max())
    scale = norm_a * float(np.abs(x).max()) + float(np.abs(b).max())
    scales = magnitude.spmv(np.abs(x)) + np.abs(b)
    zero = scales == 0
    ratios = np.abs(r) / np.where(zero, 1.0, scales)
    return _over(float(np.abs(r).max()), scale), float(ratios.max())


def _dot(x: Vector, y: Vector) -> float:
    """Return an inner product in one fixed order.

    Not BLAS: its threads would wait, spinning, beside those of the products.
    """
    return float(np.einsum("i,i->", x, y))


def _norm(x: Vector) -> float:
    return math.sqrt(_dot(x, x))


def _over(x: float, y: float) -> float:
    """Return x / y, and x where y is 0."""
    return x / y if y else x
