"""One thread that owns the device: batches of requests first, then slices of jobs."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from nnz_kernels.errors import DeviceLostError
from nnz_service import logs
from nnz_service.errors import (
    DeadlineError,
    OverloadedError,
    UnavailableError,
    WorkerLostError,
)
from nnz_service.worker.batcher import Limits, cut
from nnz_service.worker.batches import lost, run_batch
from nnz_service.worker.statistics import Counters
from nnz_service.worker.tickets import Outcome, Ticket

T = TypeVar("T")

_LOST = "the device failed, the worker is replaced"

QUEUE = 4096  # a last fuse: the web side admits far fewer
PATIENCE = 0.5  # seconds that a job may wait while requests never cease


class Scheduler:
    """Runs tickets and slices, one at a time, on a thread of its own.

    Args:
        limits: Bounds on a batch.

    Attributes:
        on_lost: Called on the device thread when the device cannot be used any more.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._queue: deque[Ticket] = deque()
        self._slices: deque[tuple[Future[Any], Callable[[], None]]] = deque()
        self._changed = threading.Condition()
        self._closed = self._lost = False
        self._last_slice = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name="device", daemon=True)
        self.on_lost: Callable[[], None] = lambda: None

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
        for ticket in self._queue:
            _fail(ticket, UnavailableError("the server is stopping"))
        self._queue.clear()
        for future, _ in self._slices:
            future.cancel()
        self._slices.clear()

    @property
    def depth(self) -> int:
        """Requests that wait now."""
        return len(self._queue)

    def waiting(self, counters: Counters) -> int:
        """Requests that wait now and are counted there."""
        with self._changed:
            return sum(ticket.counters is counters for ticket in self._queue)

    def submit(self, ticket: Ticket) -> Future[Outcome]:
        """Queue a request; cancelling its future drops it while it still waits.

        Raises:
            OverloadedError: when the queue is full.
            UnavailableError: when the scheduler is closed; WorkerLostError when its
                device has failed.
        """
        with self._changed:
            self._refuse_if_closed()
            if len(self._queue) >= QUEUE:
                raise OverloadedError(f"{QUEUE} requests wait already")
            self._queue.append(ticket)
            self._changed.notify()
        return ticket.future

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
            try:
                work()
            except DeviceLostError:
                logs.logger().exception("the device is lost")
                self.lose()
            except Exception:  # the device thread must outlive every request
                logs.logger().exception("device work failed")

    def lose(self) -> None:
        """Fail what waits, take nothing more, and say so: the device has failed."""
        with self._changed:
            self._closed = self._lost = True
            waiting, self._queue = self._queue, deque()
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
                self._drop_unwanted()
                if self._slices and (not self._queue or self._slice_is_due()):
                    self._last_slice = time.monotonic()
                    return self._slices.popleft()[1]
                if batch := cut(self._queue, self._limits):
                    taken = set(map(id, batch))
                    self._queue = deque(t for t in self._queue if id(t) not in taken)
                    return lambda: run_batch(batch)
                self._changed.wait()

    def _slice_is_due(self) -> bool:
        return time.monotonic() - self._last_slice > PATIENCE

    def _drop_unwanted(self) -> None:
        now = time.monotonic()
        kept: deque[Ticket] = deque()
        for ticket in self._queue:
            if ticket.future.cancelled():
                continue
            if ticket.deadline is not None and ticket.deadline <= now:
                _fail(ticket, DeadlineError("the deadline passed in the queue"))
                continue
            kept.append(ticket)
        self._queue = kept


def _fail(ticket: Ticket, error: Exception) -> None:
    if ticket.future.set_running_or_notify_cancel():
        ticket.counters.failed(time.perf_counter_ns() - ticket.arrived)
        ticket.future.set_exception(error)
