"""The form of an iterative method: a state machine that asks for its products.

A method owns the vectors of one right-hand side and never sees the matrix. Where it
needs a product it yields a `Request`, and is sent the answer. So the products of all
right-hand sides that wait at the same moment can be one product of a block, and a
method reads like its paper. Between two iterations all that it knows is in `KEPT`.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Mapping
from typing import Any, ClassVar

import numpy as np

from nnz_service.algebra.krylov.vectors import HERE, Space, Vector, norm, on_host
from nnz_service.solving import SolveSettings, Status


class Op(enum.Enum):
    """What a method may ask for."""

    MULTIPLY = "A x"
    TRANSPOSE = "A' x"
    MAGNITUDE = "|A| x"
    PRECONDITION = "M^-1 x"


Request = tuple[Op, Vector]
#: Asks for products and is sent them; what comes back is read only.
Steps = Generator[Request, Vector, None]


class Ended(Exception):  # noqa: N818 - an end, often a good one
    """Raised by a method when nothing more can be done."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status: Status = status
        self.message = message


class Method:
    """One right-hand side under way.

    Args:
        b: Right-hand side (m,).
        x: First iterate (n,); overwritten.
        settings: What was asked for.
        norm_a: Frobenius norm of the matrix; of the scaled one for `lsqr`.
        space: Where its vectors lie; b and x are arrays of the host.

    Attributes:
        residual: Norm of ``b - A x`` as the recursion has it; true after `start`.
        closed: How it ends, unless beginning anew from the true residual helps.
    """

    #: Names of attributes that make up the state, besides x; arrays and numbers.
    KEPT: ClassVar[tuple[str, ...]] = ()
    #: Those of them that are rows of vectors, and small arrays that stay on the host.
    ROWS: ClassVar[tuple[str, ...]] = ()
    SMALL: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        b: Vector,
        x: Vector,
        settings: SolveSettings,
        norm_a: float,
        space: Space = HERE,
    ) -> None:
        self.space = space
        self.b = space.take(b)
        self.x = space.take(x)
        self.settings = settings
        self.norm_a = norm_a
        self.residual = float("inf")
        self.closed: tuple[Status, str] | None = None

    def start(self) -> Steps:
        """Take the true residual of x and begin anew from there."""
        raise NotImplementedError

    def iterate(self) -> Steps:
        """Do one iteration."""
        raise NotImplementedError

    def settle(self) -> Steps:
        """Bring x to where the iterations have come."""
        yield from ()

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, copied."""
        found = {
            name: on_host(getattr(self, name)) for name in (*self.KEPT, "x", "residual")
        }
        return {
            k: v.copy() if isinstance(v, np.ndarray) else v for k, v in found.items()
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state` was taken."""
        for name in (*self.KEPT, "x", "residual"):
            value = state[name]
            if isinstance(value, np.ndarray) and name not in self.SMALL:
                take = self.space.take_rows if name in self.ROWS else self.space.take
                value = take(value)
            setattr(self, name, value)

    def true_residual(self) -> Generator[Request, Vector, Vector]:
        """Return ``b - A x`` from the definition, fresh, and note its norm."""
        product = yield Op.MULTIPLY, self.x
        r: Vector = self.b - product
        self.residual = norm(r)
        self.closed = None
        return r
