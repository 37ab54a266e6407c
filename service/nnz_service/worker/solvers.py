"""What the job runner expects of a solver, and which solvers there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from nnz_service.servable import Servable

Arrays = dict[str, NDArray[Any]]


class Solver(Protocol):
    """Work that can stop after any slice and go on elsewhere from its state."""

    def step(self, seconds: float) -> bool:
        """Work for about that long; True when it has ended."""
        ...

    def progress(self) -> dict[str, Any]:
        """How far it is, as plain JSON."""
        ...

    def state(self) -> Arrays:
        """Everything needed to go on from here."""
        ...

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """How it ended, as plain JSON, and the arrays of the answer."""
        ...


#: Gives a resident matrix by its id; may block while it is loaded.
FindMatrix = Callable[[str], Servable]

#: Parameters, inputs, matrices, saved state -> solver.
MakeSolver = Callable[[Mapping[str, Any], Arrays, FindMatrix, Arrays | None], Solver]

SOLVERS: dict[str, MakeSolver] = {}
