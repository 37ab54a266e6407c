"""What the job runner expects of a solver, and which solvers there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr
from nnz_service.algebra.krylov import Done, Solve
from nnz_service.algebra.krylov.errand import Errand
from nnz_service.algebra.krylov.lu import LuFactors, factorize
from nnz_service.algebra.krylov.preconditioners import Preconditioner, prepare
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidInputError
from nnz_service.servable import Servable
from nnz_service.solving import SolveSettings
from nnz_service.worker.chain_job import ChainJob
from nnz_service.worker.course_job import make_eigs, make_graph
from nnz_service.worker.factor_job import FactorJob
from nnz_service.worker.factors import FACTORS, FactorCache
from nnz_service.worker.lp_job import make_lp
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.op_job import OpJob

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


@runtime_checkable
class Outside(Protocol):
    """A solver whose work another process may do: its slices then hold no device."""

    @property
    def outside(self) -> bool:
        """Whether a slice waits instead of computing."""
        ...

    def close(self) -> None:
        """End what runs elsewhere."""
        ...


@runtime_checkable
class Metered(Protocol):
    """A solver that knows what was computed elsewhere: it may also wait for others."""

    @property
    def elsewhere(self) -> float:
        """Seconds so far."""
        ...


@runtime_checkable
class Making(Protocol):
    """A solver whose answer is a matrix, which who runs it stores for who asked."""

    @property
    def label(self) -> str | None:
        """What to call it."""
        ...

    @property
    def matrix(self) -> Csr[HostArray]:
        """It, once the solver has ended."""
        ...


@runtime_checkable
class MakingSeveral(Protocol):
    """A solver whose answer is matrices by name; see `Making`."""

    @property
    def matrices(self) -> Mapping[str, tuple[str | None, Csr[HostArray]]]:
        """What to call each, and it, once the solver has ended."""
        ...


#: Gives a resident matrix by its id; may block while it is loaded.
FindMatrix = Callable[[str], Servable]

#: Parameters, inputs, matrices, saved state -> solver.
MakeSolver = Callable[[Mapping[str, Any], Arrays, FindMatrix, Arrays | None], Solver]


class Preparation:
    """Makes what a solve needs of its matrix, or finds it: factors stay in the worker.

    Args:
        cache: Where they stay.
        matrix: Id of the matrix.
    """

    def __init__(self, cache: FactorCache, matrix: str) -> None:
        self._cache = cache
        self._matrix = matrix
        self.facts: dict[str, Any] = {}

    def __call__(
        self, name: str, a: MatrixOperator, method: str, errand: Errand
    ) -> Preconditioner:
        """See `preconditioners.prepare`."""
        if method != "direct":
            return prepare(name, a, method, errand)
        reused = True

        def make(shared: Errand) -> LuFactors:
            nonlocal reused
            reused = False
            return factorize(a, errand=shared)

        found = self._cache.get(self._matrix, make, errand)
        self.facts = {
            "factors": {
                "entries": found.entries,
                "bytes": found.nbytes,
                "reused": reused,
            }
        }
        return found


class SolveJob:
    """`algebra.krylov` as a job: parameters matrix and those of `SolveSettings`."""

    def __init__(self, solve: Solve, preparation: Preparation) -> None:
        self._solve = solve
        self._preparation = preparation
        self._done: Done | None = None

    @classmethod
    def make(
        cls,
        params: Mapping[str, Any],
        inputs: Arrays,
        find_matrix: FindMatrix,
        state: Arrays | None,
    ) -> SolveJob:
        """See `MakeSolver`; inputs are b and perhaps x0.

        Raises:
            ImpossibleError: when parameters or inputs do not fit the matrix.
        """
        servable = find_matrix(str(params.get("matrix")))
        if not isinstance(servable, MatrixServable):
            raise InvalidInputError(f"{params.get('matrix')!r} is not a matrix")
        operator = servable.operator
        preparation = Preparation(FACTORS, str(params["matrix"]))
        if state is not None and "facts" in state:  # not of an earlier version
            solve = Solve.restore(operator, state, prepare=preparation)
            return cls(solve, preparation)
        if "b" not in inputs:
            raise InvalidInputError(f"a solve needs the input b; got {[*inputs]}")
        settings = SolveSettings.of(params)
        x0 = inputs.get("x0")
        solve = Solve(operator, inputs["b"], x0, settings, prepare=preparation)
        return cls(solve, preparation)

    @property
    def outside(self) -> bool:
        """Whether a slice only waits for its preconditioner."""
        return not self._solve.prepared

    @property
    def elsewhere(self) -> float:
        """See `Metered`."""
        return self._solve.elsewhere

    def step(self, seconds: float) -> bool:
        """See `Solver`; what is `outside` is never followed by iterations."""
        solve = self._solve
        waits = self.outside
        outcome = solve.make_ready(seconds) if waits else solve.step(seconds=seconds)
        self._done = outcome if isinstance(outcome, Done) else None
        return self._done is not None

    def progress(self) -> dict[str, Any]:
        """See `Solver`."""
        return asdict(self._solve.progress())

    def state(self) -> Arrays:
        """See `Solver`."""
        return self._solve.state()

    def close(self) -> None:
        """Give up factors that are being made."""
        self._solve.close()

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Solver`."""
        if self._done is None:
            raise RuntimeError("the solve has not ended")
        return self._done.result() | self._preparation.facts, {"x": self._done.x}


def _cg(
    params: Mapping[str, Any],
    inputs: Arrays,
    find_matrix: FindMatrix,
    state: Arrays | None,
) -> SolveJob:
    """`solve` as it was called when there was one method."""
    return SolveJob.make({**params, "method": "cg"}, inputs, find_matrix, state)


SOLVERS: dict[str, MakeSolver] = {
    "cg": _cg,
    "chain": ChainJob.make,
    "eigs": make_eigs,
    "factorize": FactorJob.make,
    "graph": make_graph,
    "lp": make_lp,
    "op": OpJob.make,
    "solve": SolveJob.make,
}
