"""Answers what methods ask for; on the host all that wait together as one block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from nnz_kernels.backends import load_solver
from nnz_kernels.copies import with_room
from nnz_kernels.errors import DeviceLimitError, DeviceMemoryError
from nnz_service.algebra.krylov.method import Op, Request, Steps
from nnz_service.algebra.krylov.preconditioners import (
    Apply,
    Block,
    Movable,
    Preconditioner,
    Scaling,
)
from nnz_service.algebra.krylov.there import DeviceVector, There
from nnz_service.algebra.krylov.vectors import HERE, Space, Vector, norm
from nnz_service.algebra.operator import MatrixOperator

#: What a device has no memory or no numbers for, the host has.
NO_ROOM = (DeviceMemoryError, DeviceLimitError)


@dataclass(frozen=True, slots=True)
class Norms:
    """Norms of a matrix, and where the vectors lie that it multiplies.

    Args:
        infinity: The largest sum of a row.
        frobenius: Of all entries.
        scaled: The same with the columns scaled, where the preconditioner scales.
        space: Of vectors.
    """

    infinity: float
    frobenius: float
    scaled: float
    space: Space = HERE


class Products:
    """A matrix, its preconditioner and its norms.

    Where the matrix is on a device, vectors stay there too, each multiplied by itself;
    what is measured in the end is the host's.

    Args:
        a: In float64.
        preconditioner: That fits it.
        may_move: Whether vectors may be on a device.
    """

    def __init__(
        self, a: MatrixOperator, preconditioner: Preconditioner, may_move: bool = True
    ) -> None:
        self._a, self._preconditioner = a, preconditioner
        data, columns = a.matrix.data, a.matrix.indices
        magnitude = a.with_matrix(replace(a.matrix, data=np.abs(data)))
        sums = magnitude.spmv(np.ones(a.shape[1]))
        scaled = data
        if isinstance(preconditioner, Scaling):
            scaled = data * preconditioner.factors[columns]
        self._there: Mapping[Op, Apply] = {}
        space = self._moved() if may_move else HERE
        largest = float(sums.max(initial=0.0))
        self.norms = Norms(largest, norm(data), norm(scaled), space)
        self._run: Mapping[Op, Callable[[Block], Block]] = {
            Op.MULTIPLY: a.spmm,
            Op.TRANSPOSE: lambda x: a.spmm(x, transpose=True),
            Op.MAGNITUDE: magnitude.spmm,
            Op.PRECONDITION: preconditioner.apply,
        }
        self._one: Mapping[Op, Callable[[Vector], Vector]] = {
            Op.MULTIPLY: a.spmv,
            Op.TRANSPOSE: lambda x: a.spmv(x, transpose=True),
            Op.MAGNITUDE: magnitude.spmv,
            Op.PRECONDITION: lambda x: preconditioner.apply(x[:, None])[:, 0],
        }

    @property
    def stays(self) -> Products:
        """The same with vectors in the memory of the host."""
        return Products(self._a, self._preconditioner, may_move=False)

    def _moved(self) -> Space:
        """Let a device multiply vectors that lie there, if one can."""
        ops = load_solver(self._a.backend)
        found, preconditioner = self._a.there, self._preconditioner
        if ops is None or found is None or not isinstance(preconditioner, Movable):
            return HERE
        a, device = found
        there = There(ops, device)

        def multiply(x: DeviceVector) -> DeviceVector:
            return DeviceVector(there, with_room(lambda: ops.spmv(a, x.array)))

        def back(x: DeviceVector) -> DeviceVector:
            return DeviceVector(there, with_room(lambda: ops.spmv_t(a, x.array)))

        try:
            self._there = {
                Op.MULTIPLY: multiply,
                Op.TRANSPOSE: back,
                Op.PRECONDITION: preconditioner.moved(there, multiply),
            }
        except NO_ROOM:
            return HERE
        return cast("Space", there)

    def run(self, courses: Sequence[Steps]) -> None:
        """Carry all courses to their ends, in step."""
        if len(courses) == 1:
            self._alone(courses[0])
            return
        waiting: list[tuple[Steps, Request]] = []
        for course in courses:
            _go_on(course, None, waiting)
        while waiting:
            asked, waiting = waiting, []
            for op in Op:
                these = [(c, vector) for c, (kind, vector) in asked if kind is op]
                if these:
                    answers = self._answer(op, [vector for _, vector in these])
                    for (course, _), answer in zip(these, answers, strict=True):
                        _go_on(course, answer, waiting)

    def _alone(self, course: Steps) -> None:
        """Do the same without lists: on small matrices they took half of the time."""
        try:
            op, vector = next(course)
            while True:
                op, vector = course.send(self._single(op, vector))
        except StopIteration:
            return

    def _answer(self, op: Op, vectors: list[Vector]) -> list[Vector]:
        if len(vectors) == 1 or any(isinstance(v, DeviceVector) for v in vectors):
            return [self._single(op, vector) for vector in vectors]
        block = np.stack(vectors, axis=1)
        return list(np.ascontiguousarray(self._run[op](block).T))

    def _single(self, op: Op, vector: Vector) -> Vector:
        if isinstance(vector, DeviceVector):
            return cast("Vector", self._there[op](vector))
        return self._one[op](vector)


def _go_on(
    course: Steps, answer: Vector | None, waiting: list[tuple[Steps, Request]]
) -> None:
    try:
        asked = next(course) if answer is None else course.send(answer)
    except StopIteration:
        return
    waiting.append((course, asked))
