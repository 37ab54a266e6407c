"""Disks that are full, databases that are away: nothing is lost."""

from __future__ import annotations

import errno
import threading
import time
from typing import Any

import numpy as np
import pytest
from service.postgres import Postgres
from service.waiting import SOON
from service.worker import counting
from service.worker.counting import Bench, Counting

from nnz_kernels.convert import csr_from_dense
from nnz_service.errors import (
    DatabaseAwayError,
    InvalidMatrixError,
    StorageFullError,
)
from nnz_service.jobs import Job, MemoryStore, SqlStore, Status
from nnz_service.repository import BlobStore, bundles
from nnz_service.worker import Toolbox, attempt, ends
from nnz_service.worker.solvers import Arrays


class TestDiskIsFull:
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
    def test_of_a_checkpoint(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        """The work goes on without it."""
        save = bundles.save

        def full(blobs: BlobStore, arrays: Arrays) -> Any:
            if "job" in arrays:
                raise OSError(code, "no room")
            return save(blobs, arrays)

        monkeypatch.setattr(bundles, "save", full)
        bench.runner.start()

        end = bench.ended(bench.submit(steps=5))

        assert (end.status, end.result) == (Status.SUCCEEDED, {"count": 5})

    def test_of_a_result(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is finished when there is room, and others go on meanwhile."""
        monkeypatch.setattr(ends, "FIRST", 0.02)
        save, room = bundles.save, threading.Event()

        def full(blobs: BlobStore, arrays: Arrays) -> Any:
            if arrays.get("x", 0) == 7 and not room.is_set():
                raise OSError(errno.ENOSPC, "no room")
            return save(blobs, arrays)

        monkeypatch.setattr(bundles, "save", full)
        bench.runner.start()
        stuck = [bench.submit(steps=7) for _ in range(3)]
        others = [bench.submit(steps=n) for n in range(1, 5)]

        assert {bench.ended(job).status for job in others} == {Status.SUCCEEDED}
        assert {bench.store.get(job.id).status for job in stuck} == {Status.RUNNING}
        room.set()
        assert {bench.ended(job).status for job in stuck} == {Status.SUCCEEDED}

    @pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
    @pytest.mark.parametrize("stops", [False, True])
    def test_what_it_needs_cannot_be_opened(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int, stops: bool
    ) -> None:
        """A while later it can, here or by the next worker."""
        monkeypatch.setattr(attempt, "_RETRY", 0.02)
        blob = bundles.save(bench.blobs, {"start": np.array(3.0)})
        load, tried = np.load, threading.Event()
        free = threading.Event()

        def opened(*given: Any, **named: Any) -> Any:
            if not free.is_set():
                tried.set()
                raise OSError(code, "none left")
            return load(*given, **named)

        monkeypatch.setattr(np, "load", opened)
        bench.runner.start()
        job = bench.store.submit("count", {"steps": 2}, blob.sha256)
        bench.runner.wake()
        assert tried.wait(SOON)
        assert bench.store.get(job.id).status is Status.RUNNING
        if stops:
            bench.runner.close()
            assert bench.store.get(job.id).status is Status.QUEUED
            bench.runner = bench.another()
            bench.runner.start()
        free.set()

        end = bench.ended(job)

        assert end.status is Status.SUCCEEDED
        assert end.result_sha is not None
        path = bench.blobs.path(end.result_sha)
        assert bundles.load(path)["x"] == [5.0]

    def test_a_matrix_that_it_made_waits_for_room(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All that was computed would be lost."""
        monkeypatch.setattr(attempt, "_RETRY", 0.02)
        errors = iter([OSError(errno.ENOSPC, "no room"), StorageFullError("full")])
        eye = csr_from_dense(np.eye(2))

        class Makes(Counting):
            label = "made"
            matrix = eye

            def result(self) -> tuple[dict[str, Any], Arrays]:
                return {"count": self.count}, {}

        kept: list[object] = []

        def keep(made: object, label: str | None, owner: str) -> dict[str, Any]:
            if (error := next(errors, None)) is not None:
                raise error
            kept.append(made)
            return {"id": "m-1"}

        monkeypatch.setattr(counting, "no_keep", keep)
        bench.toolbox = Toolbox(solvers={"count": Makes})
        bench.runner = bench.another()
        bench.runner.start()

        end = bench.ended(bench.submit(steps=2))

        assert (end.status, end.result) == (
            Status.SUCCEEDED, {"count": 2, "matrix": {"id": "m-1"}},
        )  # fmt: skip
        assert kept == [eye]

    def test_a_checkpoint_outlives_a_stop(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It cannot be read now, which does not mean that it is lost."""
        monkeypatch.setattr(attempt, "_RETRY", 0.02)
        job = bench.store.submit("count", {"steps": 9})
        taken = bench.store.claim("earlier", ["count"])
        assert taken is not None
        state = {"count": np.array(6), "job": np.array(job.id)}
        saved = bundles.save(bench.blobs, state).sha256
        bench.store.progress(job.id, taken.token, {"count": 6}, saved, 1.0)
        bench.store.requeue_lost("earlier", orderly=True)
        load, tried = np.load, threading.Event()

        def lacking(*given: Any, **named: Any) -> Any:
            tried.set()
            raise OSError(errno.EMFILE, "none left")

        monkeypatch.setattr(np, "load", lacking)
        bench.runner.start()
        assert tried.wait(SOON)

        bench.runner.close()

        now = bench.store.get(job.id)
        assert (now.status, now.checkpoint) == (Status.QUEUED, saved)
        assert now.progress == {"count": 6}
        monkeypatch.setattr(np, "load", load)
        assert int(bundles.load(bench.blobs.path(saved))["count"]) == 6

    def test_who_waits_can_be_cancelled(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(attempt, "_RETRY", 0.02)
        tried = threading.Event()

        class Makes(Counting):
            label, matrix = "made", csr_from_dense(np.eye(2))

        def keep(*_: object) -> dict[str, Any]:
            tried.set()
            raise StorageFullError("full")

        monkeypatch.setattr(counting, "no_keep", keep)
        bench.toolbox = Toolbox(solvers={"count": Makes})
        bench.runner = bench.another()
        bench.runner.start()
        job = bench.submit(steps=2)
        assert tried.wait(SOON)

        bench.store.request_cancel(job.id)
        bench.runner.wake()

        assert bench.ended(job).status is Status.CANCELLED

    def test_a_matrix_that_cannot_be_opened_now(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(attempt, "_RETRY", 0.02)
        left = [errno.EMFILE, errno.ENOMEM]

        def make(*given: Any) -> Counting:
            if left:
                lack = OSError(left.pop(), "none left")
                raise InvalidMatrixError("the file cannot be read") from lack
            return Counting(*given)

        bench.toolbox = Toolbox(solvers={"count": make})
        bench.runner = bench.another()
        bench.runner.start()

        assert bench.ended(bench.submit(steps=2)).status is Status.SUCCEEDED
        assert not left

    def test_the_worker_stops_before_there_is_room(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save, room = bundles.save, threading.Event()

        def full(blobs: BlobStore, arrays: Arrays) -> Any:
            if "x" in arrays and not room.is_set():
                raise OSError(errno.ENOSPC, "no room")
            return save(blobs, arrays)

        monkeypatch.setattr(bundles, "save", full)
        bench.runner.start()
        job = bench.submit(steps=3)
        bench.until(job, lambda now: now.progress.get("count") == 3)

        bench.runner.close()

        assert bench.store.get(job.id).status is Status.QUEUED
        room.set()
        bench.runner = bench.another()
        bench.runner.start()
        assert bench.ended(job).status is Status.SUCCEEDED


class Lossy(MemoryStore):
    """The answer to the first claim is lost, and reports fail for a while."""

    claims = reports = 0

    def claim(self, *given: Any) -> Job | None:
        job = super().claim(*given)
        if job is not None:
            self.claims += 1
            if self.claims == 1:
                raise DatabaseAwayError("away")
        return job

    def progress(self, *given: Any, **named: Any) -> Job:
        self.reports += 1
        if self.reports < 4:
            raise DatabaseAwayError("away")
        return super().progress(*given, **named)


class TestDatabaseIsAway:
    def test_what_was_claimed_for_nobody_is_claimed_again(self, bench: Bench) -> None:
        bench.store = Lossy()
        bench.runner = bench.another()
        bench.runner.start()

        end = bench.ended(bench.submit(steps=9))

        assert (end.status, end.attempts) == (Status.SUCCEEDED, 2)
        assert Counting.made == [0]

    def test_a_job_that_cannot_be_prepared_waits(self, bench: Bench) -> None:
        """As when its matrix cannot be looked up."""
        away = iter([True, True, False])

        class Reluctant(Counting):
            def __init__(self, *given: Any) -> None:
                if next(away):
                    raise DatabaseAwayError("away")
                super().__init__(*given)

        bench.toolbox = Toolbox(solvers={"count": Reluctant})
        bench.runner = bench.another()
        bench.runner.start()

        end = bench.ended(bench.submit(steps=2))

        assert (end.status, end.attempts) == (Status.SUCCEEDED, 3)

    def test_until_it_is_started_again(self, bench: Bench, postgres: Postgres) -> None:
        """Jobs under way go on and end; those that wait are found."""
        url = postgres.database()
        bench.store = SqlStore(url)
        bench.runner = bench.another()
        bench.runner.start()
        job = bench.submit(steps=9, wait_at=4)
        bench.until(job, lambda now: now.progress.get("count") == 4)
        waiting = [bench.submit(steps=2) for _ in range(3)]
        postgres.stop()
        try:
            Counting.gate.set()
            time.sleep(0.5)
        finally:
            postgres.start()

        found = [bench.ended(one) for one in (job, *waiting)]

        assert {one.status for one in found} == {Status.SUCCEEDED}
        assert [one.result for one in found] == [{"count": 9}] + [{"count": 2}] * 3
