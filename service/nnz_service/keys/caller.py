"""Who a request comes from."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Scope(enum.StrEnum):
    """What a key is good for."""

    INFER = "infer"
    ALGEBRA = "algebra"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a key may ask for; None is no bound of its own.

    Args:
        inflight: Requests at once.
        rate: Requests a second, on average over a few seconds.
        work: Seconds of computing a minute.
        stored: Bytes of matrices that it keeps.
    """

    inflight: int | None = None
    rate: float | None = None
    work: float | None = None
    stored: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a key, or anybody where no key is asked for.

    Args:
        id: Of the key; empty for anybody. What a caller makes belongs to this id.
        scopes: What they may do.
        quota: How much.
        row: Of the key in tables that all web processes share, below `ROWS`.
    """

    id: str = ""
    scopes: frozenset[Scope] = field(default_factory=lambda: frozenset(Scope))
    quota: Quota = Quota()
    row: int = 0

    @property
    def admin(self) -> bool:
        """Whether nothing is closed to them."""
        return Scope.ADMIN in self.scopes


#: Rows of the shared tables: keys beyond share rows, which bounds them together.
ROWS = 256

ANYBODY = Caller()
