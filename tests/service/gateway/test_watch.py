"""Many who wait, one who looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest
from service.waiting import SOON

from nnz_service.errors import DatabaseAwayError, NotFoundError, OverloadedError
from nnz_service.gateway import Watch
from nnz_service.jobs import Job, MemoryStore


class Counting(MemoryStore):
    """A store that counts looks, and is away for the first so many."""

    looks = 0
    widest = 0
    away = 0

    def newer(self, seen: Mapping[str, int]) -> Mapping[str, Job | None]:
        self.looks += 1
        self.widest = max(self.widest, len(seen))
        if self.looks <= self.away:
            raise DatabaseAwayError("away")
        return super().newer(seen)


def never() -> bool:
    return False


async def test_a_change_is_told() -> None:
    store = MemoryStore()
    watch = Watch(store, never)
    job = store.submit("cg", {})
    waiting = asyncio.create_task(watch.change(job.id, job.revision, SOON))
    await asyncio.sleep(0.01)

    claimed = store.claim("w", ["cg"])

    assert await waiting == claimed


async def test_one_that_has_happened_is_told_at_once() -> None:
    store = MemoryStore()
    job = store.submit("cg", {})

    assert await Watch(store, never).change(job.id, 0, SOON) == job


async def test_time_is_up() -> None:
    store = MemoryStore()
    job = store.submit("cg", {})
    watch = Watch(store, never)

    assert await watch.change(job.id, job.revision, 0.05) is None
    assert await watch.change(job.id, 0, 0.0) is None


async def test_deleted() -> None:
    watch = Watch(MemoryStore(), never)

    with pytest.raises(NotFoundError, match="any more"):
        await watch.change("j-0", 0, SOON)


async def test_a_thousand_wait_behind_one_look() -> None:
    """Each look asks for every watched job at once, and they are few a second."""
    store = Counting()
    jobs = [store.submit("cg", {"n": n}) for n in range(200)]
    watch = Watch(store, never)
    waiting = [
        asyncio.create_task(watch.change(job.id, job.revision, SOON))
        for job in jobs
        for _ in range(5)
    ]
    await asyncio.sleep(1.0)
    assert store.widest == 200
    assert store.looks < 20

    for job in jobs:
        store.request_cancel(job.id)
    found = await asyncio.gather(*waiting)

    assert len(found) == 1000
    assert all(job is not None and job.status.ended for job in found)


async def test_nobody_waits_nobody_looks() -> None:
    store = Counting()
    job = store.submit("cg", {})
    watch = Watch(store, never)
    await watch.change(job.id, job.revision, 0.05)
    await asyncio.sleep(0.4)
    looks = store.looks

    await asyncio.sleep(0.3)

    assert store.looks == looks


async def test_the_database_is_away_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nnz_service.gateway.watch._AFTER_FAILURE", 0.01)
    store = Counting()
    store.away = 3
    job = store.submit("cg", {})

    assert await Watch(store, never).change(job.id, 0, SOON) == job


async def test_a_drain_sends_everybody_home() -> None:
    store = MemoryStore()
    job = store.submit("cg", {})
    draining = [False]
    watch = Watch(store, lambda: draining[0])
    waiting = asyncio.create_task(watch.change(job.id, job.revision, SOON))
    await asyncio.sleep(0.05)

    draining[0] = True
    began = time.monotonic()

    assert await waiting is None
    assert time.monotonic() - began < 1.0
    assert await watch.change(job.id, 0, SOON) is None


async def test_seats_are_bounded_and_given_back() -> None:
    watch = Watch(MemoryStore(), never, seats=1)

    with (
        watch.seat(),
        pytest.raises(OverloadedError, match="1 callers wait"),
        watch.seat(),
    ):
        pass

    with watch.seat():
        pass
