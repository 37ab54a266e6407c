"""Long operations between resident matrices as jobs, computed by runs of rows."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import load_sparse
from nnz_kernels.formats import Csr
from nnz_kernels.hosted import notes_of
from nnz_service.algebra import sparse_ops
from nnz_service.algebra.operands import Operands
from nnz_service.algebra.operator import MAX_RESULT
from nnz_service.algebra.row_parts import cuts_of, rows_of, settled, stacked
from nnz_service.errors import InvalidInputError, TooLargeError
from nnz_service.worker.matrices import MatrixServable
from nnz_service.worker.sparse import MATRICES, Known

if TYPE_CHECKING:
    from nnz_service.algebra.operator import MatrixOperator
    from nnz_service.worker.solvers import FindMatrix

Arrays = dict[str, NDArray[Any]]

#: Seconds of a run of rows: two fit a slice, so that a guess that is wrong by two still
#: gives others their turn.
PART = 0.025

#: Of a matrix in a checkpoint.
_ARRAYS = ("indptr", "indices", "data")

#: Rates and canonical forms, common to all jobs of the worker.
KNOWN = Known()


class OpJob:
    """One of `JOB_OPS` as a job: parameters op, matrix, other, name and its own.

    A checkpoint holds the rows that are done, so that a job goes on with the next ones.

    Args:
        op: Its name.
        given: Its operands.
        label: Name of the matrix that it makes, if any.
        count: Runs of rows at most; None cuts by predicted time.
        done: Rows that an earlier attempt computed, and how many runs they were.
    """

    def __init__(
        self,
        op: str,
        given: Operands,
        label: str | None = None,
        *,
        count: int | None = None,
        done: tuple[Csr[HostArray], int] | None = None,
    ) -> None:
        sparse_ops.check(op, given)
        cost = sparse_ops.estimate(op, given)
        if op != "spgemm":  # whose rows would have to be counted: `step` sees them
            sparse_ops.admit(op, given, found=cost)
        given = settled(op, given)
        self._op, self._given, self.label = op, given, label
        if count is None:
            count = math.ceil(KNOWN.seconds(op, cost.work) / PART)
        self._count = max(1, count)
        self._cuts = cuts_of(op, given, self._count) or [slice(0, 0)]
        self._work = cost.work // max(1, len(self._cuts))
        self._parts = [] if done is None else [done[0]]
        self._bytes = sum(part.nbytes for part in self._parts)
        self._next = 0 if done is None else done[1]

    @classmethod
    def make(
        cls,
        params: Mapping[str, Any],
        inputs: Arrays,
        find_matrix: FindMatrix,
        state: Arrays | None,
    ) -> OpJob:
        """See `MakeSolver`.

        Raises:
            NotFoundError: A matrix is not there any more.
            InvalidInputError: Operands do not fit.
            TooLargeError: The result would not fit; with the numbers.
        """
        names = [str(params[key]) for key in MATRICES if key in params]
        operators = [operator_of(find_matrix, name) for name in names]
        return cls.of(str(params["op"]), operators, inputs, params, state)

    @classmethod
    def of(
        cls,
        op: str,
        operators: Sequence[MatrixOperator],
        inputs: Mapping[str, HostArray],
        params: Mapping[str, Any],
        state: Arrays | None,
    ) -> OpJob:
        """Make a job of matrices that are there; see `make`.

        Args:
            op: Its name.
            operators: The matrix, the other, the mask.
            inputs: Dense operands.
            params: Of the operation, and perhaps the name of its result.
            state: To go on from.
        """
        a, *others = [KNOWN.canonical(one) for one in operators]
        kernels, threads = load_sparse(operators[0].backend), operators[0].threads
        b, mask = (*others, None, None)[:2]
        given = Operands(a, b, inputs, params, kernels, threads, mask)
        label = params.get("name")
        if state is None:
            return cls(op, given, label)
        facts, done = json.loads(str(state["facts"])), None
        if facts["done"]:
            shape = (facts["rows"], facts["columns"])
            indptr, indices, data = (state[name] for name in _ARRAYS)
            done = (Csr(indptr, indices, data, shape), facts["done"])
        return cls(op, given, label, count=facts["count"], done=done)

    def step(self, seconds: float) -> bool:
        """See `Solver`; at least one run of rows.

        Raises:
            TooLargeError: The rows so far would not fit; with the numbers.
        """
        until = time.monotonic() + seconds
        while self._next < len(self._cuts):
            part = rows_of(self._op, self._given, self._cuts[self._next])
            made = KNOWN.computed(self._op, part, self._work)
            if not isinstance(made, Csr):
                raise InvalidInputError(f"{self._op} gives no matrix")
            self._parts.append(made)
            self._next += 1
            self._bytes += made.nbytes
            self._check_size()
            if time.monotonic() >= until:
                break
        return self._next == len(self._cuts)

    def progress(self) -> dict[str, Any]:
        """See `Solver`."""
        return {
            "op": self._op,
            "rows": self._cuts[self._next - 1].stop if self._next else 0,
            "of": self._given.a.shape[0],
            "nnz": sum(part.nnz for part in self._parts),
        }

    def state(self) -> Arrays:
        """See `Solver`."""
        if not self._parts:
            return {"facts": self._facts(0, 0)}
        done = self.matrix
        arrays = {name: getattr(done, name) for name in _ARRAYS}
        return arrays | {"facts": self._facts(*done.shape)}

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Solver`; whoever runs the job stores the matrix and adds it.

        Where the CPU did what a GPU was asked for, ``notes`` says why.
        """
        notes = notes_of(self._given.kernels)
        return {"op": self._op} | ({"notes": notes} if notes else {}), {}

    @property
    def matrix(self) -> Csr[HostArray]:
        """The rows that are done, as one matrix."""
        self._parts = [stacked(self._parts)]
        return self._parts[0]

    def _check_size(self) -> None:
        if self._bytes > MAX_RESULT:
            raise TooLargeError(
                f"{self._op}: the first {self._cuts[self._next - 1].stop} of "
                f"{self._given.a.shape[0]} rows of the result take {self._bytes} "
                f"bytes; the limit is {MAX_RESULT} bytes"
            )

    def _facts(self, rows: int, columns: int) -> NDArray[Any]:
        facts = {
            "count": self._count,
            "done": self._next,
            "rows": rows,
            "columns": columns,
        }
        return np.array(json.dumps(facts))


def operator_of(find_matrix: FindMatrix, name: str) -> MatrixOperator:
    """Return a stored matrix by its id.

    Raises:
        NotFoundError: It is not there any more.
        InvalidInputError: It is something else.
    """
    servable = find_matrix(name)
    if not isinstance(servable, MatrixServable):
        raise InvalidInputError(f"{name!r} is not a matrix")
    return servable.operator
