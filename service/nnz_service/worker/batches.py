"""Run a batch as one: join inputs along axis 0, compute, give each its rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from nnz_kernels.errors import DeviceLostError, DeviceMemoryError
from nnz_service import logs
from nnz_service.errors import DeviceFullError, ServiceError, WorkerLostError
from nnz_service.servable import Tensors
from nnz_service.worker.statistics import Run
from nnz_service.worker.tickets import Outcome, Ticket

#: Takes the id of a key and the seconds that were computed for it.
Charge = Callable[[str, float], None]


def run_batch(batch: Sequence[Ticket], charge: Charge = lambda *_: None) -> None:
    """Compute and set every ticket's future; never raises for a request's sake.

    When a joined run fails each request runs again alone, so that one cannot fail
    those it happened to travel with.

    Args:
        batch: What runs as one.
        charge: Told what was computed for whom, also when it failed.

    Raises:
        DeviceLostError: Nothing can be computed in this process any more.
    """
    live = [t for t in batch if t.future.set_running_or_notify_cancel()]
    if not live:
        return
    try:
        _run(live, charge)
    except DeviceLostError as error:
        for ticket in live:
            _refuse(ticket, lost(error))
        raise
    except Exception as error:
        if len(live) == 1:
            _refuse(live[0], error)
            return
        logs.logger().warning("a batch failed, running it one by one", error=str(error))
        for at, ticket in enumerate(live):
            try:
                _run([ticket], charge)
            except DeviceLostError as fatal:
                for left in live[at:]:
                    _refuse(left, lost(fatal))
                raise
            except Exception as its_own:
                _refuse(ticket, its_own)


def _run(batch: Sequence[Ticket], charge: Charge) -> None:
    head = batch[0]
    started = time.perf_counter_ns()
    tensors = join([ticket.tensors for ticket in batch])
    joined = time.perf_counter_ns()
    try:
        answer = head.servable.run(tensors, head.outputs)
    except Exception:
        if len(batch) == 1:
            charge(head.order.owner, (time.perf_counter_ns() - joined) / 1e9)
        raise
    computed = time.perf_counter_ns()
    answers = split(answer, [ticket.rows for ticket in batch])
    ended = time.perf_counter_ns()
    run = Run(
        sum(t.rows for t in batch),
        joined - started,
        computed - joined,
        ended - computed,
    )
    head.counters.ran(run)
    for ticket, mine in zip(batch, answers, strict=True):
        waited = started - ticket.arrived
        ticket.counters.answered(ticket.rows, waited, run)
        timings = {
            "queue": waited / 1e9,
            "join": run.join / 1e9,
            "compute": run.compute / 1e9,
        }
        work = run.compute * ticket.rows / max(run.rows, 1) / 1e9
        charge(ticket.order.owner, work)
        ticket.future.set_result(Outcome(mine, timings, run.rows, work))


def join(parts: Sequence[Tensors]) -> Tensors:
    """Concatenate along axis 0, name by name; a single part is not copied."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def split(whole: Tensors, rows: Sequence[int]) -> list[Tensors]:
    """Cut axis 0 into runs of `rows`; the parts are views."""
    if len(rows) == 1:
        return [whole]
    ends = np.cumsum(rows)
    return [
        {name: tensor[end - n : end] for name, tensor in whole.items()}
        for n, end in zip(rows, ends, strict=True)
    ]


def lost(error: DeviceLostError) -> WorkerLostError:
    """Say to a caller that another worker is on its way."""
    return WorkerLostError(f"the device failed, the worker is replaced: {error}")


def _refuse(ticket: Ticket, error: Exception) -> None:
    ticket.counters.failed(time.perf_counter_ns() - ticket.arrived)
    if isinstance(error, DeviceMemoryError):
        error = DeviceFullError(str(error))
    if not isinstance(error, ServiceError):
        logs.logger().error("a kernel failed", exc_info=error)
        error = ServiceError(f"computing failed: {type(error).__name__}: {error}")
    ticket.future.set_exception(error)
