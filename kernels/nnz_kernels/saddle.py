"""Containers of primal-dual iterations: a linear program, and where they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from nnz_kernels.formats import Csr

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class SaddleProblem(Generic[A]):
    """``min c'x`` with ``lc <= A x <= uc`` and ``lv <= x <= uv``, all float64.

    ``a`` is (m, n) and ``at`` its transpose, both in rows, so that both products add in
    the order of a row; bounds may be infinite.
    """

    a: Csr[A]
    at: Csr[A]
    c: A
    lc: A
    uc: A
    lv: A
    uv: A

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        vectors: tuple[Any, ...] = (self.c, self.lc, self.uc, self.lv, self.uv)
        return self.a.nbytes + self.at.nbytes + sum(int(x.nbytes) for x in vectors)

    def map(self, move: Callable[[A], B], /) -> SaddleProblem[B]:
        """Return the same problem with each array moved, say to the device."""
        vectors = (self.c, self.lc, self.uc, self.lv, self.uv)
        return SaddleProblem(
            self.a.map(move), self.at.map(move), *(move(x) for x in vectors)
        )


@dataclass(frozen=True, slots=True)
class SaddleState(Generic[A]):
    """Iterates, all float64; an op writes into them.

    Args:
        x: Primal iterate (n,).
        y: Dual iterate (m,).
        x0: Anchor of x.
        y0: Anchor of y.
        xh: Primal-dual hybrid gradient point of the last iteration (n,).
        yh: The same for y.
        r: Reduced costs of that point, from its projection (n,).
        dx: ``x - (2 xh - x)`` before x moved: twice the step (n,).
        dy: The same for y.
        xb: Reflected point, room to work (n,).
    """

    x: A
    y: A
    x0: A
    y0: A
    xh: A
    yh: A
    r: A
    dx: A
    dy: A
    xb: A

    def map(self, move: Callable[[A], B], /) -> SaddleState[B]:
        """Return the same iterates with each array moved."""
        return SaddleState(*(move(getattr(self, f.name)) for f in fields(self)))
