"""What a linear system can be solved with, and what a solve may be asked for.

Plain data: the web process checks a request by it, the worker builds solvers by it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from nnz_service import usage
from nnz_service.errors import ImpossibleError, MalformedError

Status = Literal[
    "converged",
    "iteration_limit",
    "time_limit",
    "breakdown",
    "not_spd",
    "singular",
    "numerical_error",
    "cancelled",
]

_SYMMETRIC = ("none", "jacobi", "ic0", "chebyshev")
_GENERAL = ("none", "jacobi", "ilu0", "ic0", "chebyshev")

#: Methods and the preconditioners that each may have.
METHODS: dict[str, tuple[str, ...]] = {
    "cg": _SYMMETRIC,
    "bicgstab": _GENERAL,
    "gmres": _GENERAL,
    "minres": _SYMMETRIC,
    "lsqr": ("none", "jacobi"),
    "direct": ("none",),
}

#: Methods whose matrix need not be square.
RECTANGULAR = frozenset({"lsqr"})

#: Right-hand sides of one solve at most: lists of jobs carry the figures of each.
MAX_COLUMNS = 256

#: Right-hand sides that are worked on together at most; the others wait for a place.
WIDTH = 32

#: Entries that one round of iterations may touch, about a slice of a job's time.
ROUND = 20_000_000

#: Right-hand sides that go through the factors of ``direct`` together: the fill is not
#: known before, and may be a hundred times the matrix.
DIRECT_WIDTH = 4

#: Bytes that the vectors of a solve may take.
MAX_WORKSPACE = min(4 << 30, usage.memory_limit() // 4)

#: Iterations that are kept apart before GMRES begins anew.
MAX_RESTART = 1000

#: Vectors of a column besides those of GMRES: what the largest of the methods holds.
_VECTORS = 12


@dataclass(frozen=True, slots=True)
class SolveSettings:
    """What a solve is asked for.

    Args:
        method: One of ``METHODS``.
        rtol: Converged when ``||b - A x|| <= max(rtol * ||b||, atol)``, 2-norms. For
            ``lsqr`` also when ``||A' r|| <= rtol ||A||_F ||r||``.
        atol: See rtol.
        maxiter: Iterations of each right-hand side at most; None means 10 n.
        restart: Vectors that ``gmres`` keeps before it begins anew.
        preconditioner: One of those that the method may have.
        time_limit: Seconds of computing at most; None for no limit.
    """

    method: str = "cg"
    rtol: float = 1e-5
    atol: float = 0.0
    maxiter: int | None = None
    restart: int = 30
    preconditioner: str = "none"
    time_limit: float | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """Take the settings out of a job's parameters and check them.

        Raises:
            MalformedError: One has the wrong type.
            ImpossibleError: One has a value that makes no sense.
        """
        known = {field.name for field in fields(cls)}
        settings = cls(**{name: params[name] for name in params if name in known})
        settings.check()
        return settings

    def check(self) -> None:
        """Raise MalformedError or ImpossibleError when a setting makes no sense."""
        _one_of("method", self.method, tuple(METHODS))
        _number("rtol", self.rtol)
        _number("atol", self.atol)
        if self.maxiter is not None:
            _count("maxiter", self.maxiter, 2**31 - 1)
        _count("restart", self.restart, MAX_RESTART)
        if self.time_limit is not None:
            _number("time_limit", self.time_limit)
        allowed = METHODS[self.method]
        _one_of(f"preconditioner of {self.method}", self.preconditioner, allowed)

    def width(self, shape: tuple[int, int], nnz: int) -> int:
        """Return how many right-hand sides are worked on together; 4 at least."""
        if self.method == "direct":
            return DIRECT_WIDTH
        return max(4, min(WIDTH, ROUND // max(1, nnz + 10 * max(shape))))

    def check_workspace(self, shape: tuple[int, int], nnz: int, columns: int) -> None:
        """Raise ImpossibleError when the vectors would not fit `MAX_WORKSPACE`."""
        kept = self.restart + 1 if self.method == "gmres" else 0
        together = min(columns, self.width(shape, nnz))
        vectors = (kept + _VECTORS) * together + 3 * columns
        nbytes = vectors * max(shape) * 8
        if nbytes > MAX_WORKSPACE:
            raise ImpossibleError(
                f"the vectors of {self.method} for {columns} right-hand sides of "
                f"{shape[0]} rows take {nbytes} bytes; the limit is {MAX_WORKSPACE}"
            )

    def to_json(self) -> dict[str, Any]:
        """All of them, by name."""
        return asdict(self)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ImpossibleError(
            f"{name} is {value!r:.60}, but must be one of {', '.join(allowed)}"
        )


def _number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedError(f"{name} is {value!r:.60}, but must be a number")
    if not 0 <= value <= sys.float_info.max:
        raise ImpossibleError(f"{name} is {value!r:.60}, but must be 0 or more")


def _count(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise MalformedError(f"{name} is {value!r:.60}, but must be a whole number")
    if not 1 <= value <= most:
        raise ImpossibleError(f"{name} is {value!r:.60}, but must be from 1 to {most}")
