"""Several operations in one call; what only they need is never stored.

Each step is a run of its own on the device, so that others need not wait for all.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr
from nnz_service.algebra.operator import MAX_RESULT, MatrixOperator
from nnz_service.algebra.profiles import Known, Profile, Result, forecast
from nnz_service.dataplane import Reply, Tensors
from nnz_service.errors import ImpossibleError, TooLargeError
from nnz_service.repository import BlobStore, is_matrix_id
from nnz_service.worker.calls import Params
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.servables import Entry
from nnz_service.worker.sparse import MAX_SECONDS
from nnz_service.worker.sparse_calls import Sparse
from nnz_service.worker.steps import Step, check_held, named, on_host
from nnz_service.worker.tickets import Order

#: Rows and columns that a forecast counts, of all matrices together: 8 bytes each.
_MOST_CELLS = 1 << 27

#: Forecasts at the same time: each may hold a gigabyte.
_AT_ONCE = 2


class Chains:
    """Answers the call `chain`.

    Args:
        sparse: Finds, runs and stores.
    """

    def __init__(self, sparse: Sparse) -> None:
        self._sparse = sparse
        # One that nobody waits for any more goes on to its end, and counts until then.
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="forecast")

    async def answer(
        self, params: Params, tensors: Tensors, deadline: float | None
    ) -> Reply:
        """Run all steps, or with `preflight` say what they would cost.

        Returns:
            `matrices` by the name of their step, as `sparse` gives one; tensors by the
            name of theirs.

        Raises:
            ServiceError: Why a step cannot be done; the message names it.
        """
        steps = [Step.of(row) for row in params["steps"]]
        operators = {
            name: await self._sparse.operator(name)
            for name in dict.fromkeys(n for step in steps for n in step.matrices)
            if is_matrix_id(name)
        }
        if params.get("preflight"):
            work = partial(self._forecast, steps, operators, tensors)
            run = partial(contextvars.copy_context().run, work)
            loop = asyncio.get_running_loop()
            return Reply(await loop.run_in_executor(self._pool, run))
        course = _Course(self._sparse, operators, tensors, deadline, Order.of(params))
        for number, step in enumerate(steps):
            with named(step):
                await course.take(step)
            later = {name for one in steps[number + 1 :] for name in one.uses}
            course.drop_unless(later)
        return await course.reply()

    def _forecast(
        self,
        steps: list[Step],
        operators: Mapping[str, MatrixOperator],
        tensors: Tensors,
    ) -> dict[str, Any]:
        known: dict[str, Any] = dict(tensors)
        cells = sum(sum(operator.shape) for operator in operators.values())
        _check_cells(cells)
        for name, operator in operators.items():
            known[name] = Profile.of(self._sparse.known.canonical(operator))
        rows, held = [], 0
        for step in steps:
            with named(step):
                row, result = self._priced(step, known)
                known[step.name] = result
                if isinstance(result, Profile):
                    cells += sum(result.shape)
                _check_cells(cells)
            rows.append(row)
            held += row["output_bytes"]
        seconds = sum(row["seconds"] for row in rows)
        return {
            "steps": rows,
            "flops": sum(row["flops"] for row in rows),
            "output_bytes": held,
            "seconds": seconds,
            "fits": held <= MAX_RESULT and seconds <= MAX_SECONDS,
            "limit_bytes": MAX_RESULT,
            "limit_seconds": MAX_SECONDS,
            "device": str(next(iter(operators.values())).backend),
        }

    def _priced(
        self, step: Step, known: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Result]:
        a, *others = (known[name] for name in step.matrices)
        dense = {name: known[source] for name, source in step.inputs.items()}
        b, mask = (*others, None, None)[:2]
        given = Known(a, b, dense, step.params, mask)
        cost, result = forecast(step.op, given)
        seconds = self._sparse.known.seconds(step.op, cost.work)
        return {
            "as": step.name,
            "op": step.op,
            **cost.to_json(),
            "seconds": seconds,
        }, result


class _Course:
    """A chain under way: what its steps have made so far."""

    def __init__(
        self,
        sparse: Sparse,
        operators: Mapping[str, MatrixOperator],
        tensors: Tensors,
        deadline: float | None,
        order: Order,
    ) -> None:
        self._sparse = sparse
        self._operators = dict(operators)
        self._tensors = dict(tensors)
        self._made: dict[str, MatrixOperator] = {}
        self._dense: dict[str, HostArray] = {}
        self._kept: dict[str, Csr[HostArray] | HostArray] = {}
        self._deadline, self._order = deadline, order
        self._seconds = 0.0
        self._timings: dict[str, float] = {}

    async def take(self, step: Step) -> None:
        """Do one step.

        Raises:
            ServiceError: Why it cannot be done.
        """
        matrices = self._operators | self._made
        operators = [matrices[name] for name in step.matrices]
        dense = {name: self._tensors[source] for name, source in step.inputs.items()}
        asked = self._sparse.operation(step.op, step.params, dense, operators)
        outcome, matrix = await self._sparse.computed(
            asked, self._deadline, self._order
        )
        self._seconds += outcome.work
        for stage, seconds in outcome.timings.items():
            self._timings[stage] = self._timings.get(stage, 0.0) + seconds
        result: Csr[HostArray] | HostArray
        if matrix is None:
            (result,) = outcome.tensors.values()
            self._tensors[step.name] = self._dense[step.name] = result
        else:
            result = matrix
            first = operators[0]
            self._made[step.name] = on_host(matrix, first.backend, first.threads)
        if step.keep:
            self._kept[step.name] = result
        self._check()

    def drop_unless(self, later: set[str]) -> None:
        """Let go of what no later step uses."""
        self._made = {k: v for k, v in self._made.items() if k in later}
        self._tensors = {k: v for k, v in self._tensors.items() if k in later}
        self._dense = {k: v for k, v in self._dense.items() if k in later}

    async def reply(self) -> Reply:
        """Store what is kept, and answer with it."""
        matrices: dict[str, Mapping[str, Any]] = {}
        tensors: dict[str, HostArray] = {}
        for name, result in self._kept.items():
            if isinstance(result, Csr):
                matrices[name] = await self._sparse.stored(result)
            else:
                tensors[name] = result
        told = {"matrices": matrices, "batch": 1}
        return Reply(told, tensors, self._timings)

    def _check(self) -> None:
        """Refuse to hold or to compute more than one operation may.

        Raises:
            TooLargeError, ImpossibleError: With the numbers.
        """
        matrices = [operator.matrix for operator in self._made.values()]
        check_held((*matrices, *self._dense.values(), *self._kept.values()))
        if self._seconds > MAX_SECONDS:
            raise ImpossibleError(
                f"the steps so far took {self._seconds:.0f} s; the limit of a chain is "
                f"{MAX_SECONDS:g} s"
            )


def _check_cells(cells: int) -> None:
    """Refuse to count so many rows and columns: a few bytes name any size.

    Raises:
        TooLargeError: There are too many.
    """
    if cells > _MOST_CELLS:
        raise TooLargeError(
            f"a forecast counts {cells} rows and columns; the limit is {_MOST_CELLS}"
        )


def sparse_answers(
    find: Callable[[Params], Awaitable[Entry]], scheduler: Scheduler, blobs: BlobStore
) -> dict[str, Callable[[Params, Tensors, float | None], Awaitable[Reply]]]:
    """Return what answers calls for operations: one of them, and several.

    Args:
        find: Gives what is resident under a name, and loads what is stored.
        scheduler: Runs them.
        blobs: Where matrices go.
    """
    sparse = Sparse(find, scheduler, blobs)
    return {"sparse": sparse.answer, "chain": Chains(sparse).answer}
