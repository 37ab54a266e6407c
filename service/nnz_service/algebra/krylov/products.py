"""Answers what methods ask for, all that wait at one moment as one block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnz_service.algebra.krylov.method import Op, Request, Steps
from nnz_service.algebra.krylov.preconditioners import (
    Block,
    Preconditioner,
    Scaling,
)
from nnz_service.algebra.krylov.vectors import Vector, norm
from nnz_service.algebra.operator import MatrixOperator


@dataclass(frozen=True, slots=True)
class Norms:
    """Norms of a matrix.

    Args:
        infinity: The largest sum of a row.
        frobenius: Of all entries.
        scaled: The same with the columns scaled, where the preconditioner scales.
    """

    infinity: float
    frobenius: float
    scaled: float


class Products:
    """A matrix, its preconditioner and its norms.

    Args:
        a: In float64.
        preconditioner: That fits it.
    """

    def __init__(self, a: MatrixOperator, preconditioner: Preconditioner) -> None:
        data, columns = a.matrix.data, a.matrix.indices
        magnitude = a.with_matrix(replace(a.matrix, data=np.abs(data)))
        sums = magnitude.spmv(np.ones(a.shape[1]))
        scaled = data
        if isinstance(preconditioner, Scaling):
            scaled = data * preconditioner.factors[columns]
        self.norms = Norms(float(sums.max(initial=0.0)), norm(data), norm(scaled))
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
                op, vector = course.send(self._one[op](vector))
        except StopIteration:
            return

    def _answer(self, op: Op, vectors: list[Vector]) -> list[Vector]:
        if len(vectors) == 1:
            return [self._one[op](vectors[0])]
        block = np.stack(vectors, axis=1)
        return list(np.ascontiguousarray(self._run[op](block).T))


def _go_on(
    course: Steps, answer: Vector | None, waiting: list[tuple[Steps, Request]]
) -> None:
    try:
        asked = next(course) if answer is None else course.send(answer)
    except StopIteration:
        return
    waiting.append((course, asked))
