"""Chains as jobs: several operations that take too long for a request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import Backend
from nnz_kernels.formats import Csr
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.algebra.row_parts import BY_ROWS
from nnz_service.repository import is_matrix_id
from nnz_service.worker.op_job import KNOWN, OpJob, operator_of
from nnz_service.worker.paired import operation_of
from nnz_service.worker.steps import Step, check_held, named, on_host

if TYPE_CHECKING:
    from nnz_service.worker.solvers import FindMatrix

Arrays = dict[str, NDArray[Any]]

#: Of a matrix in a checkpoint.
_ARRAYS = ("indptr", "indices", "data")


class ChainJob:
    """A chain as a job: its parameter `steps` is that of the call `chain`.

    A slice does one step at most, and of operations that go by rows a run of them. A
    checkpoint holds the results that are still needed, and the rows of the step under
    way.

    Args:
        steps: In their order, as the web side checked them.
        tensors: Of the request.
        find_matrix: Gives stored matrices.
        state: What an earlier attempt came to.

    Raises:
        NotFoundError: A matrix is not there any more.
    """

    def __init__(
        self,
        steps: Sequence[Mapping[str, Any]],
        tensors: Mapping[str, HostArray],
        find_matrix: FindMatrix,
        state: Arrays | None = None,
    ) -> None:
        self._steps = [Step.of(row) for row in steps]
        self._labels = {row["as"]: row.get("name") for row in steps}
        self._tensors = dict(tensors)
        self._made: dict[str, Csr[HostArray]] = {}
        self._dense: dict[str, HostArray] = {}
        self._operators: dict[str, MatrixOperator] = {}
        #: Back-end and threads of the matrices that were stored.
        self._where: tuple[Backend, int | None] = (Backend.CPU, None)
        self._next = 0
        self._part: OpJob | None = None
        self._begun: Arrays | None = None
        if state is not None:
            self._resume(state)
        names = (name for step in self._steps[self._next :] for name in step.matrices)
        for name in dict.fromkeys(names):
            if is_matrix_id(name):
                found = self._operators[name] = operator_of(find_matrix, name)
                self._where = found.backend, found.threads
        for name, matrix in self._made.items():
            self._operators[name] = on_host(matrix, *self._where)

    @classmethod
    def make(
        cls,
        params: Mapping[str, Any],
        inputs: Arrays,
        find_matrix: FindMatrix,
        state: Arrays | None,
    ) -> ChainJob:
        """See `MakeSolver`.

        Raises:
            NotFoundError: A matrix is not there any more.
        """
        return cls(params["steps"], inputs, find_matrix, state)

    def step(self, seconds: float) -> bool:
        """See `Solver`.

        Raises:
            ServiceError: Why a step cannot be done; the message names it.
        """
        if self._next < len(self._steps):
            step = self._steps[self._next]
            with named(step):
                if self._did(step, seconds):
                    self._next += 1
                    self._drop()
                    check_held((*self._made.values(), *self._dense.values()))
        return self._next == len(self._steps)

    def progress(self) -> dict[str, Any]:
        """See `Solver`; the step under way, at the end the last."""
        at = min(self._next, len(self._steps) - 1)
        step = self._steps[at]
        part = {} if self._part is None else self._part.progress()
        about = {"step": step.name, "op": step.op, "number": at + 1}
        rows = {"rows": part["rows"], "of_rows": part["of"]} if part else {}
        return about | {"of": len(self._steps)} | rows

    def state(self) -> Arrays:
        """See `Solver`."""
        shapes = {name: list(matrix.shape) for name, matrix in self._made.items()}
        arrays = {
            f"m.{name}.{part}": getattr(matrix, part)
            for name, matrix in self._made.items()
            for part in _ARRAYS
        }
        arrays |= {f"t.{name}": x for name, x in self._dense.items()}
        begun = self._begun if self._part is None else self._part.state()
        arrays |= {f"p.{name}": x for name, x in (begun or {}).items()}
        facts = {"next": self._next, "shapes": shapes, "where": self._where}
        return arrays | {"facts": np.array(json.dumps(facts))}

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Solver`; whoever runs the job stores `matrices` and adds them."""
        return {"op": "chain"}, dict(self._dense)

    @property
    def matrices(self) -> dict[str, tuple[str | None, Csr[HostArray]]]:
        """Kept matrices and what to call them, by step."""
        return {name: (self._labels[name], m) for name, m in self._made.items()}

    def _did(self, step: Step, seconds: float) -> bool:
        """Go on with a step; whether it is done."""
        operators = [self._operators[name] for name in step.matrices]
        dense = {name: self._tensors[source] for name, source in step.inputs.items()}
        if step.op in BY_ROWS:
            if self._part is None:
                begun, self._begun = self._begun, None
                self._part = OpJob.of(step.op, operators, dense, step.params, begun)
            if not self._part.step(seconds):
                return False
            self._keep(step.name, self._part.matrix)
            self._part = None
            return True
        asked = operation_of(KNOWN, step.op, step.params, dense, operators)
        tensors = asked.run(asked.tensors, None)
        if asked.matrix is not None:
            self._keep(step.name, asked.matrix)
        else:
            (self._dense[step.name],) = tensors.values()
            self._tensors[step.name] = self._dense[step.name]
        return True

    def _keep(self, name: str, matrix: Csr[HostArray]) -> None:
        self._made[name] = matrix
        self._operators[name] = on_host(matrix, *self._where)

    def _drop(self) -> None:
        """Let go of what no later step uses and nobody wants."""
        wanted = {step.name for step in self._steps if step.keep}
        later = {name for step in self._steps[self._next :] for name in step.uses}
        self._made = {k: v for k, v in self._made.items() if k in wanted | later}
        self._dense = {k: v for k, v in self._dense.items() if k in wanted | later}
        self._tensors = {k: v for k, v in self._tensors.items() if k in later}
        self._operators = {k: v for k, v in self._operators.items() if k in later}

    def _resume(self, state: Arrays) -> None:
        facts = json.loads(str(state["facts"]))
        self._next = facts["next"]
        backend, threads = facts["where"]
        self._where = Backend(backend), threads
        for name, shape in facts["shapes"].items():
            indptr, indices, data = (state[f"m.{name}.{part}"] for part in _ARRAYS)
            self._made[name] = Csr(indptr, indices, data, tuple(shape))
        self._dense = _under("t.", state)
        self._tensors |= self._dense
        self._begun = _under("p.", state) or None


def _under(prefix: str, state: Arrays) -> Arrays:
    return {
        name.removeprefix(prefix): x
        for name, x in state.items()
        if name.startswith(prefix)
    }
