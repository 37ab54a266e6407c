"""One thread that owns the device: batches of requests first, then slices of jobs."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from nnz_kernels.errors import DeviceLostError
from nnz_service import logs
from nnz_service.errors import (
    DeadlineError,
    UnavailableError,
    WorkerLostError,
)
from nnz_service.worker.batcher import Limits, cut
from nnz_service.worker.batches import Charge, lost, run_batch
from nnz_service.worker.queue import Bounds, Queue
from nnz_service.worker.statistics import Counters
from nnz_service.worker.tickets import Outcome, Ticket

T = TypeVar("T")

_LOST = "the device failed, the worker is replaced"

PATIENCE = 0.5  # seconds that a job may wait while requests never cease


class Scheduler:
    """Runs tickets and slices, one at a time, on a thread of its own.

    Args:
        limits: Bounds on a batch.
        bounds: On what waits.
        quick: Predicted nanoseconds below which a request that nobody is before runs on
            the thread that submits it: to wake another one would take longer.

    Attributes:
        on_lost: Called on the device thread when the device cannot be used any more.
        on_queue: Called when a request has begun to wait, on the thread that sent it.
        on_work: Called with the id of a key and the seconds that were computed for it.
        on_change: Called when what runs has changed, with the tokens of the requests
            that run now.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        bounds: Bounds | None = None,
        quick: int = 0,
    ) -> None:
        self._limits = limits or Limits()
        self._quick = quick
        self._waits = False  # the device thread, for work
        self._lent = False  # the device, to the thread that submitted something quick
        self._queue = Queue(bounds or Bounds())
        self._slices: deque[tuple[Future[Any], Callable[[], None]]] = deque()
        self._changed = threading.Condition()
        self._closed = self._lost = False
        self._last_slice = time.monotonic()
        self._running = Running()
        self._thread = threading.Thread(target=self._loop, name="device", daemon=True)
        self.on_lost: Callable[[], None] = lambda: None
        self.on_queue: Callable[[], None] = lambda: None
        self.on_work: Charge = lambda *_: None
        self.on_change: Callable[[Sequence[int]], None] = lambda _: None

    def start(self) -> None:
        """Start the device thread."""
        self._thread.start()

    def close(self) -> None:
        """Finish the batch at hand, fail what waits, end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        for ticket in self._queue.clear():
            _fail(ticket, UnavailableError("the server is stopping"))
        for future, _ in self._slices:
            future.cancel()
        self._slices.clear()

    @property
    def depth(self) -> int:
        """Requests that wait now."""
        return len(self._queue)

    @property
    def backlog(self) -> int:
        """Predicted nanoseconds of what waits and of what is left of what runs."""
        return self._queue.cost + self._running.left()

    @property
    def busy(self) -> float:
        """Seconds that what runs now has taken so far."""
        return self._running.seconds()

    def waiting(self, counters: Counters) -> int:
        """Requests that wait now and are counted there."""
        with self._changed:
            return sum(ticket.counters is counters for ticket in self._queue)

    def submit(self, ticket: Ticket) -> Future[Outcome]:
        """Queue a request, or run it at once when it is quick and nobody is before it.

        Cancelling its future drops it while it still waits.

        Raises:
            OverloadedError: when the queue is full, or the answer could not be in time.
            UnavailableError: when the scheduler is closed; WorkerLostError when its
                device has failed.
        """
        with self._changed:
            self._refuse_if_closed()
            here = self._waits and not self._due() and self._is_quick(ticket)
            if here:
                self._lent = True
                self._begin([ticket])
            else:
                self._queue.add(ticket, self._running.left())
                self._changed.notify()
        if here:
            self._run_here(ticket)
        else:
            self.on_queue()
        return ticket.future

    def _is_quick(self, ticket: Ticket) -> bool:
        """Whether it is known to take less than a hand-over."""
        return 0 < ticket.known < self._quick

    def _run_here(self, ticket: Ticket) -> None:
        self._do(lambda: run_batch([ticket], self.on_work))
        with self._changed:
            self._lent = False
            self._rest()
            if self._due():
                self._changed.notify()

    def _due(self) -> bool:
        """Whether the device thread has anything to do, now or next."""
        return bool(self._lent or self._slices or len(self._queue) or self._closed)

    def slice(self, step: Callable[[], T]) -> Future[T]:
        """Queue a short piece of a job; it runs when no request waits, or in turn."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(step())
                except DeviceLostError as error:
                    future.set_exception(lost(error))
                    raise
                except Exception as error:  # the job's failure, not the device's
                    future.set_exception(error)

        with self._changed:
            self._refuse_if_closed()
            self._slices.append((future, run))
            self._changed.notify()
        return future

    def _loop(self) -> None:
        while (work := self._next()) is not None:
            self._do(work)
            del work  # while nothing is to do nothing is held

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except DeviceLostError:
            logs.logger().exception("the device is lost")
            self.lose()
        except Exception:  # the thread must outlive every request
            logs.logger().exception("device work failed")

    def lose(self) -> None:
        """Fail what waits, take nothing more, and say so: the device has failed."""
        with self._changed:
            self._closed = self._lost = True
            waiting = self._queue.clear()
            slices, self._slices = self._slices, deque()
            self._changed.notify_all()
        for ticket in waiting:
            _fail(ticket, WorkerLostError(_LOST))
        for future, _ in slices:
            if future.set_running_or_notify_cancel():
                future.set_exception(WorkerLostError(_LOST))
        self.on_lost()

    def _refuse_if_closed(self) -> None:
        if self._lost:
            raise WorkerLostError(_LOST)
        if self._closed:
            raise UnavailableError("the server is stopping")

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while True:
                if self._closed:
                    return None
                if not self._lent and (work := self._take()) is not None:
                    return work
                self._waits = True
                self._changed.wait()
                self._waits = False

    def _take(self) -> Callable[[], None] | None:
        self._drop_unwanted()
        if self._slices and (not len(self._queue) or self._slice_is_due()):
            self._last_slice = time.monotonic()
            self._begin([])
            return self._slices.popleft()[1]
        if batch := cut(self._queue, self._limits):
            self._queue.take(batch)
            self._begin(batch)
            return lambda: run_batch(batch, self.on_work)
        self._rest()
        return None

    def _rest(self) -> None:
        self._running = Running()
        self.on_change(())

    def _begin(self, batch: Sequence[Ticket]) -> None:
        self._running = Running(time.monotonic_ns(), sum(one.cost for one in batch))
        self.on_change([one.order.token for one in batch])

    def _slice_is_due(self) -> bool:
        return time.monotonic() - self._last_slice > PATIENCE

    def _drop_unwanted(self) -> None:
        for ticket in self._queue.drop(time.monotonic()):
            _fail(ticket, DeadlineError("the deadline passed in the queue"))


@dataclass(frozen=True, slots=True)
class Running:
    """What the device does now.

    Args:
        since: `time.monotonic_ns()` when it began; 0 when it does nothing.
        cost: Predicted nanoseconds.
    """

    since: int = 0
    cost: int = 0

    def left(self) -> int:
        """Nanoseconds that it should still take."""
        return max(0, self.since + self.cost - time.monotonic_ns())

    def seconds(self) -> float:
        """How long it has taken so far."""
        return (time.monotonic_ns() - self.since) / 1e9 if self.since else 0.0


def _fail(ticket: Ticket, error: Exception) -> None:
    if ticket.future.set_running_or_notify_cancel():
        ticket.counters.failed(time.perf_counter_ns() - ticket.arrived)
        ticket.future.set_exception(error)
