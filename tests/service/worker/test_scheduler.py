from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from service.worker.servables import SOON, Doubler, rows

from nnz_service.errors import (
    DeadlineError,
    InvalidInputError,
    ServiceError,
    UnavailableError,
)
from nnz_service.worker.batches import join, split
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.statistics import Counters
from nnz_service.worker.tickets import Outcome, Ticket, ticket


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler()
    made.start()
    yield made
    made.close()


class Blocked:
    """Keeps the device busy until `release`, so that others have to wait."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.servable = Doubler(max_batch=0)
        self.servable.gate.clear()
        self.future = scheduler.submit(of(self.servable, 1))
        assert self.servable.entered.wait(SOON)

    def release(self) -> None:
        self.servable.gate.set()
        self.future.result(SOON)


def of(servable: Doubler, count: int, value: float = 1.0, **more: Any) -> Ticket:
    return ticket(servable, rows(count, value), None, Counters(), **more)


def answer(future: Future[Outcome]) -> np.ndarray[Any, Any]:
    return future.result(SOON).tensors["y"]


def test_nothing_is_held_while_nothing_is_to_do(scheduler: Scheduler) -> None:
    """The last batch's servable and tensors are free as soon as it is answered."""
    doubler = Doubler()
    gone = weakref.ref(doubler)
    answer(scheduler.submit(of(doubler, 1)))
    del doubler

    limit = time.monotonic() + SOON
    while gone() is not None:
        assert time.monotonic() < limit
        time.sleep(0.01)


class TestBatching:
    def test_what_waited_goes_together(self, scheduler: Scheduler) -> None:
        doubler = Doubler(max_batch=8)
        blocked = Blocked(scheduler)
        futures = [scheduler.submit(of(doubler, n, n)) for n in (1, 2, 3)]

        blocked.release()

        for n, future in zip((1, 2, 3), futures, strict=True):
            assert answer(future).tolist() == [[2.0 * n] * 3] * n
        assert doubler.batches == [6]

    def test_max_batch(self, scheduler: Scheduler) -> None:
        doubler = Doubler(max_batch=4)
        blocked = Blocked(scheduler)
        futures = [scheduler.submit(of(doubler, 1)) for _ in range(10)]

        blocked.release()
        for future in futures:
            future.result(SOON)

        assert doubler.batches == [4, 4, 2]

    def test_fixed_batch_runs_alone(self, scheduler: Scheduler) -> None:
        doubler = Doubler(max_batch=0)
        blocked = Blocked(scheduler)
        futures = [scheduler.submit(of(doubler, 1)) for _ in range(3)]

        blocked.release()
        for future in futures:
            future.result(SOON)

        assert doubler.batches == [1, 1, 1]

    def test_one_failure_stays_alone(self, scheduler: Scheduler) -> None:
        doubler = Doubler()
        blocked = Blocked(scheduler)
        futures = [scheduler.submit(of(doubler, 1, value)) for value in (1, -1, 2)]

        blocked.release()

        assert answer(futures[0])[0, 0] == 2
        assert answer(futures[2])[0, 0] == 4
        with pytest.raises(ServiceError, match="FloatingPointError: negative"):
            futures[1].result(SOON)

    def test_counts(self, scheduler: Scheduler) -> None:
        doubler, counters = Doubler(), Counters(clock=lambda: 12.5)
        blocked = Blocked(scheduler)
        futures = [
            scheduler.submit(ticket(doubler, rows(n), None, counters)) for n in (1, 2)
        ]
        blocked.release()
        for future in futures:
            future.result(SOON)
        failing = ticket(doubler, rows(1, -1), None, counters)
        with pytest.raises(ServiceError):
            scheduler.submit(failing).result(SOON)

        stats = counters.to_json("d", "1")

        assert (stats["inference_count"], stats["execution_count"]) == (3, 1)
        assert stats["last_inference"] == 12500
        spent = stats["inference_stats"]
        assert (spent["success"]["count"], spent["fail"]["count"]) == (2, 1)
        assert spent["queue"]["count"] == spent["compute_infer"]["count"] == 2
        assert spent["success"]["ns"] >= spent["queue"]["ns"] > 0
        assert [row["batch_size"] for row in stats["batch_stats"]] == [3]
        assert counters.cost(10) > 0


class TestDropping:
    def test_cancelled(self, scheduler: Scheduler) -> None:
        doubler = Doubler()
        blocked = Blocked(scheduler)
        gone, kept = (scheduler.submit(of(doubler, 1)) for _ in range(2))

        assert gone.cancel()
        blocked.release()

        kept.result(SOON)
        assert doubler.batches == [1]

    def test_deadline_passed_in_the_queue(self, scheduler: Scheduler) -> None:
        doubler = Doubler()
        blocked = Blocked(scheduler)
        late = scheduler.submit(of(doubler, 1, deadline=time.monotonic() - 1))

        blocked.release()

        with pytest.raises(DeadlineError, match="in the queue"):
            late.result(SOON)
        assert doubler.batches == []

    def test_close_fails_what_waits(self) -> None:
        scheduler = Scheduler()
        scheduler.start()
        blocked = Blocked(scheduler)
        waiting = scheduler.submit(of(Doubler(), 1))
        closing = threading.Thread(target=scheduler.close)
        closing.start()

        blocked.release()
        closing.join(SOON)

        with pytest.raises(UnavailableError, match="stopping"):
            waiting.result(SOON)
        with pytest.raises(UnavailableError, match="stopping"):
            scheduler.submit(of(Doubler(), 1))
        with pytest.raises(UnavailableError, match="stopping"):
            scheduler.slice(lambda: None)

    def test_close_without_start(self) -> None:
        scheduler = Scheduler()
        waiting = scheduler.submit(of(Doubler(), 1))

        scheduler.close()

        with pytest.raises(UnavailableError):
            waiting.result(SOON)


class TestSlices:
    def test_requests_first(self, scheduler: Scheduler) -> None:
        order: list[str] = []
        blocked = Blocked(scheduler)
        piece = scheduler.slice(lambda: order.append("slice"))
        request = scheduler.submit(of(Doubler(), 1))
        request.add_done_callback(lambda _: order.append("request"))

        blocked.release()
        piece.result(SOON)

        assert order == ["request", "slice"]

    def test_but_not_for_ever(
        self, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nnz_service.worker.scheduler.PATIENCE", 0.0)
        order: list[str] = []
        blocked = Blocked(scheduler)
        request = scheduler.submit(of(Doubler(), 1))
        request.add_done_callback(lambda _: order.append("request"))
        piece = scheduler.slice(lambda: order.append("slice"))

        blocked.release()
        request.result(SOON)
        piece.result(SOON)

        assert order == ["slice", "request"]

    def test_failure_is_the_caller_s(self, scheduler: Scheduler) -> None:
        def fail() -> None:
            raise InvalidInputError("no")

        with pytest.raises(InvalidInputError, match="no"):
            scheduler.slice(fail).result(SOON)

        assert scheduler.slice(lambda: 7).result(SOON) == 7


class TestJoinAndSplit:
    def test_inverse(self) -> None:
        parts = [rows(n, n) for n in (2, 0, 3)]

        back = split(join(parts), [2, 0, 3])

        for one, two in zip(parts, back, strict=True):
            np.testing.assert_array_equal(one["x"], two["x"])

    def test_a_lone_one_is_not_copied(self) -> None:
        part = rows(2)

        assert join([part])["x"] is part["x"]
        assert split(part, [2])[0]["x"] is part["x"]
