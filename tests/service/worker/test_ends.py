"""An end is written as soon as there is room, and other jobs do not wait for it."""

from __future__ import annotations

import dataclasses
import errno
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnz_service.errors import DatabaseAwayError
from nnz_service.jobs import Job, MemoryStore, Status
from nnz_service.repository import Blob, BlobStore, bundles
from nnz_service.worker import ends
from nnz_service.worker.attempt import End
from nnz_service.worker.ends import WAITING, Ends


class Room:
    """Stands before `bundles.save`; may have none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = True
        self._save = bundles.save
        monkeypatch.setattr(bundles, "save", self)

    def __call__(self, blobs: BlobStore, arrays: Any) -> Blob:
        if not self.free:
            raise OSError(errno.ENOSPC, "no space left on device")
        return self._save(blobs, arrays)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def succeeded(store: MemoryStore) -> End:
    store.submit("cg", {})
    job = store.claim("w", ["cg"])
    assert job is not None
    arrays = {"x": np.arange(3.0)}
    return End(job, Status.SUCCEEDED, {"iterations": 3}, arrays, seconds=1.5)


def test_written_at_once(store: MemoryStore, blobs: BlobStore) -> None:
    end = succeeded(store)

    Ends(store, blobs).add(end)

    job = store.get(end.job.id)
    assert (job.status, job.result, job.seconds) == (
        Status.SUCCEEDED,
        {"iterations": 3},
        1.5,
    )
    assert job.result_sha is not None
    path = blobs.path(job.result_sha)
    assert bundles.load(path)["x"].tolist() == [0, 1, 2]
    assert job.result_bytes == path.stat().st_size


def test_a_full_disk(store: MemoryStore, blobs: BlobStore, room: Room) -> None:
    """The job stays running, and succeeds when there is room."""
    end = succeeded(store)
    written = Ends(store, blobs)
    room.free = False

    written.add(end)

    assert store.get(end.job.id).status is Status.RUNNING
    assert written.jobs == {end.job.id}
    assert not written.full
    written.retry(now=math.inf)
    assert written.jobs == {end.job.id}
    room.free = True
    written.retry(now=math.inf)
    assert store.get(end.job.id).status is Status.SUCCEEDED
    assert written.jobs == set()


def test_it_is_not_tried_without_a_pause(
    store: MemoryStore, blobs: BlobStore, room: Room
) -> None:
    written = Ends(store, blobs)
    room.free = False
    written.add(succeeded(store))
    room.free = True

    written.retry()

    assert len(written.jobs) == 1


def test_patience_ends(
    store: MemoryStore,
    blobs: BlobStore,
    room: Room,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ends, "PATIENCE", 0.0)
    end = succeeded(store)
    written = Ends(store, blobs)
    room.free = False

    written.add(end)
    written.retry(now=math.inf)

    job = store.get(end.job.id)
    assert job.status is Status.FAILED
    assert "no space left on device" in str(job.error)
    assert "make room" in str(job.error)
    assert job.result is None


def test_too_many_wait(store: MemoryStore, blobs: BlobStore, room: Room) -> None:
    """Results are kept in memory meanwhile: their number is bounded."""
    written = Ends(store, blobs)
    room.free = False
    for n in range(WAITING):
        assert not written.full, n
        written.add(succeeded(store))

    assert written.full


class Away(MemoryStore):
    """Does what it is told, and then says that it could not."""

    away = 2

    def finish(self, *given: Any, **named: Any) -> Job:
        job = super().finish(*given, **named) if self.away == 1 else None
        if self.away:
            self.away -= 1
            raise DatabaseAwayError("away")
        return job or super().finish(*given, **named)


def test_an_answer_of_the_database_gets_lost(blobs: BlobStore) -> None:
    """The end was written though the store said no: it is not written twice."""
    store = Away()
    end = succeeded(store)
    written = Ends(store, blobs)

    written.add(end)
    written.retry(now=math.inf)
    assert store.get(end.job.id).status is Status.SUCCEEDED
    written.retry(now=math.inf)

    job = store.get(end.job.id)
    assert (job.status, job.revision) == (Status.SUCCEEDED, 3)
    assert job.result_sha is not None
    assert blobs.path(job.result_sha).is_file()
    assert written.jobs == set()


def test_a_job_that_another_worker_has(store: MemoryStore, blobs: BlobStore) -> None:
    end = succeeded(store)
    store.requeue_lost("w")
    other = store.claim("other", ["cg"])

    written = Ends(store, blobs)
    written.add(end)

    assert store.get(end.job.id) == other
    assert written.jobs == set()


def test_the_last_checkpoint_goes(store: MemoryStore, blobs: BlobStore) -> None:
    end = succeeded(store)
    state = bundles.save(blobs, {"n": np.array(1)})
    job = store.progress(end.job.id, end.job.token, {}, state.sha256)

    Ends(store, blobs).add(dataclasses.replace(end, job=job))

    assert not state.path.exists()
