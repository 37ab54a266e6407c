"""Requests that take less time than it takes to wake the device thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from service.worker.servables import SOON, Doubler, rows

from nnz_kernels.backends import Backend
from nnz_kernels.convert import csr_from_dense
from nnz_kernels.errors import DeviceLostError
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import WorkerLostError
from nnz_service.servable import Tensors
from nnz_service.worker.host import _QUICK
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.sparse import Known, SparseOperation
from nnz_service.worker.statistics import Counters, Run
from nnz_service.worker.tickets import ticket
from nnz_service.worker.vectors import VectorOp

QUICK = 1_000_000_000


class Watched(Doubler):
    """Knows the threads it ran on, and fails when two run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []
        self._alone = threading.Lock()

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        assert self._alone.acquire(blocking=False)
        try:
            self.threads.append(threading.current_thread().name)
            if (tensors["x"] == 13).any():
                raise DeviceLostError("gone")
            return super().run(tensors, outputs)
        finally:
            self._alone.release()


@pytest.fixture
def servable() -> Watched:
    return Watched()


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(quick=QUICK)
    made.start()
    rested(made)
    yield made
    made.close()


def rested(scheduler: Scheduler) -> None:
    """Wait until the device thread has nothing to do."""
    limit = time.monotonic() + SOON
    while not scheduler._waits:
        assert time.monotonic() < limit
        time.sleep(0.001)


def known(nanoseconds: int = 1000) -> Counters:
    """Counters of a servable that ran before, so long a row."""
    counters = Counters()
    counters.ran(Run(1, 0, nanoseconds, 0))
    return counters


def ask(
    scheduler: Scheduler, servable: Watched, counters: Counters, value: float = 1.0
) -> Future[Any]:
    return scheduler.submit(ticket(servable, rows(1, value), None, counters))


def test_runs_where_it_is_submitted(scheduler: Scheduler, servable: Watched) -> None:
    future = ask(scheduler, servable, known())

    assert future.done()
    assert future.result().tensors["y"][0, 0] == 2
    assert servable.threads == [threading.current_thread().name]
    assert (scheduler.depth, scheduler.busy) == (0, 0)


@pytest.mark.parametrize(
    "counters", [Counters(), known(2 * QUICK)], ids=["unknown", "slow"]
)
def test_others_are_for_the_device_thread(
    scheduler: Scheduler, servable: Watched, counters: Counters
) -> None:
    ask(scheduler, servable, counters).result(SOON)

    assert servable.threads == ["device"]


def test_nobody_is_overtaken(scheduler: Scheduler, servable: Watched) -> None:
    servable.gate.clear()
    slow = ask(scheduler, servable, Counters())
    assert servable.entered.wait(SOON)

    second = ask(scheduler, servable, known())

    assert not second.done()
    servable.gate.set()
    assert second.result(SOON).rows == 1
    assert slow.done()
    assert servable.threads == ["device", "device"]


def test_what_comes_meanwhile_is_taken_up(
    scheduler: Scheduler, servable: Watched
) -> None:
    """The device thread stays away while another uses the device, then goes on."""
    servable.gate.clear()
    futures: list[Future[Any]] = []
    quick = threading.Thread(
        target=lambda: futures.append(ask(scheduler, servable, known())), name="loop"
    )
    quick.start()
    assert servable.entered.wait(SOON)
    behind = ask(scheduler, servable, Counters())
    piece = scheduler.slice(lambda: 7)
    time.sleep(0.02)
    assert not behind.done()
    assert not piece.done()

    servable.gate.set()

    assert behind.result(SOON).rows == 1
    assert piece.result(SOON) == 7
    quick.join()
    assert futures[0].done()
    assert servable.threads == ["loop", "device"]


def test_device_that_is_lost_by_it(scheduler: Scheduler, servable: Watched) -> None:
    told = threading.Event()
    scheduler.on_lost = told.set

    with pytest.raises(WorkerLostError):
        ask(scheduler, servable, known(), value=13.0).result(SOON)

    assert told.is_set()
    with pytest.raises(WorkerLostError):
        ask(scheduler, servable, known())


def test_many_threads(scheduler: Scheduler, servable: Watched) -> None:
    """Whoever runs it, one runs at a time, and every request is answered."""
    counters = known()

    def call() -> None:
        for value in range(200):
            answer = ask(scheduler, servable, counters, value % 7).result(SOON)
            assert answer.tensors["y"][0, 0] == 2 * (value % 7)

    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            call()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    assert counters.inference_count == 1600
    assert "device" in servable.threads


def test_ends_in_order(servable: Watched) -> None:
    made = Scheduler(quick=QUICK)
    made.start()
    rested(made)
    ask(made, servable, known())

    made.close()

    assert not made._thread.is_alive()


class TestSizes:
    """Operations of one name may be of any size: earlier ones do not tell."""

    def test_a_large_one_after_many_small_ones(self, scheduler: Scheduler) -> None:
        class Sized(Watched):
            steady = False
            max_batch = 0
            size = 1

            def work(self, rows: int) -> int:
                return self.size

        servable, counters = Sized(), Counters()
        for _ in range(3):
            rested(scheduler)
            asked = ticket(servable, {"x": rows(1)["x"]}, None, counters)
            scheduler.submit(asked).result(SOON)
        servable.size = 2 * QUICK
        rested(scheduler)

        large = scheduler.submit(ticket(servable, rows(1), None, counters))

        large.result(SOON)
        me = threading.current_thread().name
        # The first may have to be compiled: not where others wait.
        assert servable.threads == ["device", me, me, "device"]

    def test_what_operations_say(self) -> None:
        """Of matrices they find out as they run; of vectors they know the bytes."""
        kinds = [VectorOp("dot", {}, Backend.REFERENCE, n) for n in (0, 10**6)]
        small, large = (kind.work(1) for kind in kinds)
        operator = MatrixOperator(csr_from_dense(np.eye(2)), Backend.REFERENCE)
        norm = SparseOperation(Known(), "norm", {}, {}, [operator])

        assert 0 < small < _QUICK <= large
        assert norm.work(1) >= _QUICK
