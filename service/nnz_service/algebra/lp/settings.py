"""What the solution of a linear program is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnz_service.errors import InvalidInputError

METHODS = ("auto", "pdhg", "highs")

#: Tolerances below this are beyond float64.
FINEST = 1e-14


@dataclass(frozen=True, slots=True)
class LpSettings:
    """Tolerances and limits.

    Args:
        method: ``pdhg`` (first order), ``highs`` (simplex and interior point of HiGHS)
            or ``auto``: HiGHS up to two million entries, PDHG beyond.
        eps_rel: A residual must be at most ``eps_abs + eps_rel * scale``, where the
            scale is the 2-norm of the row bounds, that of the costs, and
            ``|objective| + |dual objective|`` for the gap, both without the offset.
        eps_abs: See eps_rel.
        max_iterations: At most so many; None means no limit.
        time_limit: Seconds of computing at most; None means no limit.
        presolve: Whether ``pdhg`` iterates on what HiGHS's presolve leaves; None: if
            HiGHS is there, and no start is given.
        polish: Relative primal and dual residual to which ``pdhg`` takes what it found
            within the tolerances, by feasibility polishing; None: not at all.
    """

    method: str = "auto"
    eps_rel: float = 1e-6
    eps_abs: float = 1e-6
    max_iterations: int | None = None
    time_limit: float | None = None
    presolve: bool | None = None
    polish: float | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> LpSettings:
        """Return the settings among the parameters of a job, checked."""
        names = cls.__slots__
        settings = cls(**{n: params[n] for n in names if params.get(n) is not None})
        settings.check()
        return settings

    def check(self) -> None:
        """Raise InvalidInputError when a setting makes no sense."""
        if self.method not in METHODS:
            raise InvalidInputError(
                f"method is {self.method!r}, but must be one of {', '.join(METHODS)}"
            )
        for name in ("eps_rel", "eps_abs"):
            if not _is_real(value := getattr(self, name)) or not 0 <= value < 1:
                raise InvalidInputError(
                    f"{name} is {value!r}, but must be from 0 to below 1"
                )
        if self.eps_rel + self.eps_abs < FINEST:
            raise InvalidInputError(
                "eps_rel and eps_abs are both almost 0; no float64 solution is so exact"
            )
        limit = self.max_iterations
        if limit is not None and (type(limit) is not int or limit < 1):
            raise InvalidInputError(
                f"max_iterations is {limit!r}, but must be 1 or more"
            )
        if self.presolve not in (None, True, False):
            raise InvalidInputError(
                f"presolve is {self.presolve!r}, but must be a bool"
            )
        polish = self.polish
        if polish is not None and not (_is_real(polish) and FINEST <= polish < 1):
            raise InvalidInputError(
                f"polish is {polish!r}, but must be from {FINEST:g} to below 1"
            )
        seconds = self.time_limit
        if seconds is not None and (not _is_real(seconds) or not seconds > 0):
            raise InvalidInputError(
                f"time_limit is {seconds!r}, but must be more than 0 seconds"
            )


def _is_real(value: object) -> bool:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    # It is a real number: that is asked first.
    return real and math.isfinite(float(value))  # type: ignore[arg-type]
