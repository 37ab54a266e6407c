"""Jobs from the queue to their end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.worker.counting import Bench, Counting
from service.worker.servables import SOON

from nnz_service.jobs import Job, MemoryStore, Status
from nnz_service.repository import bundles
from nnz_service.worker import attempt


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

        def kept() -> set[str]:
            return {path.name for path in tmp_path.iterdir() if path.is_file()}

        bench.until(end, lambda _: kept() == {end.result_sha})

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

    @pytest.mark.parametrize("look", ["wake", "report"])
    def test_is_seen_soon(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, look: str
    ) -> None:
        """Within a slice of a call that says so, else at the next report."""
        monkeypatch.setattr(attempt, "REPORT", 60.0 if look == "wake" else 0.05)
        bench.runner.start()

        def seconds() -> float:
            job = bench.submit(steps=3, wait_at=1)
            bench.until(job, lambda now: now.status is Status.RUNNING)
            time.sleep(0.1)
            began = time.monotonic()
            bench.store.request_cancel(job.id)
            if look == "wake":
                bench.runner.wake()
            assert bench.ended(job).status is Status.CANCELLED
            return time.monotonic() - began

        # Of several: other programs use this machine, too.
        assert min(seconds() for _ in range(5)) < 0.3

    def test_other_news_change_nothing(self, bench: Bench) -> None:
        bench.runner.start()
        job = bench.submit(steps=3, wait_at=1)
        bench.until(job, lambda now: now.progress.get("count") == 1)

        bench.runner.wake()
        bench.submit(steps=1)

        Counting.gate.set()
        assert bench.ended(job).status is Status.SUCCEEDED


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

    def test_a_checkpoint_that_is_gone(self, bench: Bench) -> None:
        """The job begins anew rather than fail."""
        job = bench.store.submit("count", {"steps": 6})
        claimed = bench.store.claim("w", ["count"])
        assert claimed is not None
        bench.store.progress(job.id, claimed.token, {"count": 4}, "0" * 64)

        bench.runner.start()

        assert bench.ended(job).status is Status.SUCCEEDED
        assert Counting.made == [0]

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
