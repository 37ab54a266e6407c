"""What the job runner expects of a solver, and which solvers there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nnz_service.algebra.cg import CgSettings, ConjugateGradients, Done
from nnz_service.errors import InvalidInputError
from nnz_service.servable import Servable
from nnz_service.worker.matrices import MatrixServable

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


class ConjugateGradientJob:
    """`algebra.cg` as a job: parameters matrix, rtol, atol, maxiter, preconditioner."""

    def __init__(self, solve: ConjugateGradients) -> None:
        self._solve = solve
        self._done: Done | None = None

    @classmethod
    def make(
        cls,
        params: Mapping[str, Any],
        inputs: Arrays,
        find_matrix: FindMatrix,
        state: Arrays | None,
    ) -> ConjugateGradientJob:
        """See `MakeSolver`; inputs are b and perhaps x0.

        Raises:
            InvalidInputError: when parameters or inputs do not fit the matrix.
        """
        servable = find_matrix(str(params.get("matrix")))
        if not isinstance(servable, MatrixServable):
            raise InvalidInputError(f"{params.get('matrix')!r} is not a matrix")
        if state is not None:
            return cls(ConjugateGradients.restore(servable.operator, state))
        if "b" not in inputs:
            raise InvalidInputError(f"cg needs the input b; got {[*inputs]}")
        names = ("rtol", "atol", "maxiter", "preconditioner")
        settings = CgSettings(**{n: params[n] for n in names if n in params})
        x0 = inputs.get("x0")
        return cls(ConjugateGradients(servable.operator, inputs["b"], x0, settings))

    def step(self, seconds: float) -> bool:
        """See `Solver`."""
        outcome = self._solve.step(seconds=seconds)
        self._done = outcome if isinstance(outcome, Done) else None
        return self._done is not None

    def progress(self) -> dict[str, Any]:
        """See `Solver`."""
        return asdict(self._solve.progress())

    def state(self) -> Arrays:
        """See `Solver`."""
        return {name: np.asarray(x) for name, x in self._solve.state().items()}

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Solver`."""
        if self._done is None:
            raise RuntimeError("the solve has not ended")
        return self._done.result(), {"x": self._done.x}


SOLVERS: dict[str, MakeSolver] = {"cg": ConjugateGradientJob.make}
