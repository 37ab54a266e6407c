"""Graph algorithms and eigenpairs as jobs: rounds until a slice is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nnz_service.algebra.eigenpairs import Eigenpairs
from nnz_service.algebra.graphs import (
    Components,
    Levels,
    PageRank,
    Triangles,
    shortest_paths,
)
from nnz_service.algebra.graphs.course import Arrays, Course
from nnz_service.algebra.krylov.solve import in_float64
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidInputError
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.op_job import KNOWN

if TYPE_CHECKING:
    from nnz_service.worker.solvers import FindMatrix


#: Of a checkpoint: seconds of computing so far.
_SPENT = "spent"
#: Parameters that no algorithm takes.
_NOT_OF_IT = ("matrix", "algorithm", "time_limit")


class CourseJob:
    """An algorithm that goes by rounds, as a job.

    When its time is over it ends with what there is, and the status ``time_limit``.

    Args:
        course: It.
        limit: Seconds of computing at most; None for no limit.
        state: What an earlier attempt came to.
        cut: Has the course end by itself, after few rounds that make a whole of what
            there is; without it is whole after every round.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        course: Course,
        limit: float | None = None,
        state: Arrays | None = None,
        *,
        cut: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._course, self._limit, self._cut = course, limit, cut
        self._clock = clock
        self._spent = 0.0 if state is None else float(state.get(_SPENT, 0.0))
        self._late = False

    def step(self, seconds: float) -> bool:
        """See `Solver`; at least one round."""
        began = self._clock()
        ended = False
        while not ended:
            ended = self._course.round()
            took = self._clock() - began
            if not ended and self._over(took):
                if self._cut is None:
                    ended = self._late = True
                else:
                    self._cut()
            if took >= seconds:
                break
        self._spent += self._clock() - began
        return ended

    def _over(self, seconds: float) -> bool:
        return self._limit is not None and self._spent + seconds >= self._limit

    def progress(self) -> dict[str, Any]:
        """See `Solver`."""
        return self._course.progress()

    def state(self) -> Arrays:
        """See `Solver`."""
        return self._course.state() | {_SPENT: np.array(self._spent)}

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Solver`."""
        facts, arrays = self._course.result()
        return facts | ({"status": "time_limit"} if self._late else {}), arrays


def make_graph(
    params: Mapping[str, Any],
    inputs: Arrays,
    find_matrix: FindMatrix,
    state: Arrays | None,
) -> CourseJob:
    """See `MakeSolver`; parameters are matrix, algorithm, time_limit and its own.

    Raises:
        InvalidMatrixError: The matrix is not square, real or finite.
    """
    a = _operator(params, find_matrix)
    told = {k: v for k, v in params.items() if k not in _NOT_OF_IT}
    course = _COURSES[str(params["algorithm"])](a, state=state, **told)
    return CourseJob(course, params.get("time_limit"), state)


def make_eigs(
    params: Mapping[str, Any],
    inputs: Arrays,
    find_matrix: FindMatrix,
    state: Arrays | None,
) -> CourseJob:
    """See `MakeSolver`; parameters are matrix, time_limit and those of `Eigenpairs`.

    Raises:
        InvalidMatrixError: The matrix is not symmetric, real or finite.
        ImpossibleError: The vectors take too much memory.
    """
    a = _operator(params, find_matrix)
    told = {k: v for k, v in params.items() if k not in _NOT_OF_IT}
    pairs = Eigenpairs(a, state=state, **told)
    return CourseJob(pairs, params.get("time_limit"), state, cut=pairs.cut)


def _operator(params: Mapping[str, Any], find_matrix: FindMatrix) -> MatrixOperator:
    """Return a square matrix in canonical form and float64."""
    name = str(params.get("matrix"))
    servable = find_matrix(name)
    if not isinstance(servable, MatrixServable):
        raise InvalidInputError(f"{name!r} is not a matrix")
    operator = servable.operator
    matrix = KNOWN.canonical(operator)
    if matrix is not operator.matrix:
        operator = operator.with_matrix(matrix)
    return in_float64(operator, square=True)


_COURSES: dict[str, Any] = {
    "pagerank": PageRank,
    "bfs": Levels,
    "sssp": shortest_paths,
    "components": Components,
    "triangles": Triangles,
}
