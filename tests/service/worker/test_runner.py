from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.worker.servables import SOON

from nnz_service.errors import InvalidInputError, NotFoundError
from nnz_service.jobs import Job, JobStore, MemoryStore, Status
from nnz_service.repository import BlobStore, bundles
from nnz_service.servable import Servable
from nnz_service.worker import Toolbox, attempt, runner
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.solvers import Arrays, FindMatrix


class Counting:
    """Counts to `params["steps"]`, one a slice; may wait or fail at a step."""

    gate = threading.Event()
    made: list[int] = []  # noqa: RUF012 - where each attempt began

    def __init__(
        self,
        params: Mapping[str, Any],
        inputs: Arrays,
        find_matrix: FindMatrix,
        state: Arrays | None,
    ) -> None:
        self.params = params
        self.start = float(inputs["start"]) if inputs else 0.0
        self.count = 0 if state is None else int(state["count"])
        Counting.made.append(self.count)
        if params.get("refuse"):
            raise InvalidInputError("not these parameters")

    def step(self, seconds: float) -> bool:
        if self.count == self.params.get("wait_at"):
            time.sleep(0.001)
            if not Counting.gate.is_set():
                return False
        if self.count == self.params.get("fail_at"):
            raise ZeroDivisionError("in the middle")
        self.count += 1
        return self.count >= self.params["steps"]

    def progress(self) -> dict[str, Any]:
        return {"count": self.count}

    def state(self) -> Arrays:
        return {"count": np.asarray(self.count)}

    def result(self) -> tuple[dict[str, Any], Arrays]:
        return {"count": self.count}, {"x": np.array([self.start + self.count])}


class Bench:
    """A runner with everything that it needs."""

    def __init__(self, folder: Path) -> None:
        self.store: JobStore = MemoryStore()
        self.blobs = BlobStore(folder)
        self.scheduler = Scheduler()
        self.scheduler.start()
        self.toolbox = Toolbox(solvers={"count": Counting})
        self.runner = self.another()

    def another(self) -> runner.JobRunner:
        return runner.JobRunner(
            self.store, self.blobs, self.toolbox, self.scheduler, no_matrix, "w"
        )

    def submit(self, **params: Any) -> Job:
        job = self.store.submit("count", params)
        self.runner.wake()
        return job

    def until(self, job: Job, done: Callable[[Job], bool]) -> Job:
        limit = time.monotonic() + SOON
        while not done(now := self.store.get(job.id)):
            assert time.monotonic() < limit, now
            time.sleep(0.002)
        return now

    def ended(self, job: Job) -> Job:
        return self.until(job, lambda now: now.status.ended)


def no_matrix(name: str) -> Servable:
    raise NotFoundError(name)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(attempt, "REPORT", 0.0)
    monkeypatch.setattr(attempt, "FIRST_SAVE", 0.0)
    monkeypatch.setattr(attempt, "SAVE", 0.0)
    monkeypatch.setattr(runner, "POLL", 0.02)
    Counting.gate.clear()
    Counting.made.clear()
    made = Bench(tmp_path)
    yield made
    Counting.gate.set()
    made.runner.close()
    made.scheduler.close()


class TestRun:
    def test_to_the_end(self, bench: Bench) -> None:
        bench.runner.start()
        inputs = bundles.save(bench.blobs, {"start": np.array(100.0)})
        job = bench.store.submit("count", {"steps": 5}, inputs.sha256)
        bench.runner.wake()

        end = bench.ended(job)

        assert (end.status, end.result) == (Status.SUCCEEDED, {"count": 5})
        assert end.progress == {"count": 5}
        assert end.result_sha is not None
        assert bundles.load(bench.blobs.path(end.result_sha))["x"] == [105]

    def test_no_checkpoint_is_left(self, bench: Bench, tmp_path: Path) -> None:
        bench.runner.start()

        end = bench.ended(bench.submit(steps=20))

        kept = {path.name for path in tmp_path.iterdir() if path.is_file()}
        assert kept == {end.result_sha}

    def test_equal_job_forgotten_meanwhile(self, bench: Bench) -> None:
        """Its result is the same blob, which must not go with it."""

        class Forgetful(MemoryStore):
            def finish(self, *given: Any, **named: Any) -> Job:
                if first.status.ended and len(self.list()) == 2:
                    self.delete(first.id, bench.blobs.delete)
                return super().finish(*given, **named)

        bench.store = Forgetful()
        bench.runner = bench.another()
        bench.runner.start()
        first = bench.submit(steps=3)
        first = bench.ended(first)
        second = bench.ended(bench.submit(steps=3))

        assert [job.id for job in bench.store.list()] == [second.id]
        assert first.result_sha == second.result_sha is not None
        path = bench.blobs._folder / second.result_sha
        bench.until(second, lambda _: path.is_file())

    def test_several_at_once(self, bench: Bench) -> None:
        bench.runner.start()
        waiting = bench.submit(steps=3, wait_at=1)

        quick = [bench.submit(steps=4) for _ in range(3)]

        assert {bench.ended(job).status for job in quick} == {Status.SUCCEEDED}
        assert bench.store.get(waiting.id).status is Status.RUNNING
        Counting.gate.set()
        assert bench.ended(waiting).status is Status.SUCCEEDED

    def test_found_without_a_wake(self, bench: Bench) -> None:
        bench.runner.start()

        job = bench.store.submit("count", {"steps": 1})

        assert bench.ended(job).status is Status.SUCCEEDED


class TestFailure:
    @pytest.mark.parametrize(
        ("params", "error"),
        [
            ({"refuse": True}, "not these parameters"),
            ({"steps": 5, "fail_at": 3}, "ZeroDivisionError: in the middle"),
        ],
    )
    def test_is_recorded(self, bench: Bench, params: Any, error: str) -> None:
        bench.runner.start()

        end = bench.ended(bench.submit(**params))

        assert (end.status, end.error) == (Status.FAILED, error)
        assert bench.ended(bench.submit(steps=2)).status is Status.SUCCEEDED

    def test_inputs_are_gone(self, bench: Bench) -> None:
        bench.runner.start()
        job = bench.store.submit("count", {"steps": 1}, "0" * 64)

        assert "is gone" in str(bench.ended(job).error)


class TestCancel:
    def test_running(self, bench: Bench) -> None:
        bench.runner.start()
        job = bench.submit(steps=3, wait_at=1)
        bench.until(job, lambda now: now.progress.get("count") == 1)

        bench.store.request_cancel(job.id)

        assert bench.ended(job).status is Status.CANCELLED


class TestResume:
    def test_close_hands_the_job_on(self, bench: Bench) -> None:
        bench.runner.start()
        job = bench.submit(steps=9, wait_at=4)
        bench.until(job, lambda now: now.progress.get("count") == 4)

        bench.runner.close()

        left = bench.store.get(job.id)
        assert left.status is Status.QUEUED
        assert left.checkpoint is not None
        Counting.gate.set()
        bench.runner = bench.another()
        bench.runner.start()
        end = bench.ended(job)
        assert (end.status, end.attempts) == (Status.SUCCEEDED, 2)
        assert Counting.made == [0, 4]

    def test_successor_of_a_dead_worker(self, bench: Bench) -> None:
        """
        What a worker left running is taken up where its checkpoint stands.
        """
        job = bench.store.submit("count", {"steps": 6})
        claimed = bench.store.claim("w", ["count"])
        assert claimed is not None
        state = bundles.save(
            bench.blobs, {"count": np.asarray(4), "job": np.array(job.id)}
        )
        bench.store.progress(job.id, claimed.token, {"count": 4}, state.sha256)

        bench.runner.start()

        end = bench.ended(job)
        assert (end.status, end.attempts) == (Status.SUCCEEDED, 2)
        assert Counting.made == [4]

    def test_job_taken_away_is_dropped(self, bench: Bench) -> None:
        """
        A worker that was thought dead finds its token stale and writes nothing.
        """
        bench.runner.start()
        job = bench.submit(steps=9, wait_at=2)
        bench.until(job, lambda now: now.progress.get("count") == 2)

        bench.store.requeue_lost("w")
        taken = bench.store.claim("other", ["count"])

        assert taken is not None
        limit = time.monotonic() + SOON
        while bench.runner.running:
            assert time.monotonic() < limit
            time.sleep(0.002)
        assert bench.store.get(job.id) == taken
