"""What was computed for each key, and what that leaves of its quota."""

from __future__ import annotations

from pathlib import Path

import pytest
from service.worker.counting import Bench
from service.worker.servables import Doubler, rows

from nnz_service.dataplane import Page, allowance
from nnz_service.jobs import Status
from nnz_service.keys import KeyFile, Quota, Scope
from nnz_service.worker.batches import run_batch
from nnz_service.worker.meter import Meter
from nnz_service.worker.statistics import Counters
from nnz_service.worker.tickets import Order, ticket


def test_it_is_added_up_and_taken_from_the_quota(tmp_path: Path) -> None:
    """Of requests and of jobs; a key without a bound, and anybody, are only counted."""
    file = KeyFile(tmp_path)
    bounded, _ = file.create("a", frozenset({Scope.ALGEBRA}), quota=Quota(work=60.0))
    free, _ = file.create("b", frozenset({Scope.ALGEBRA}))
    page = Page()
    meter = Meter(page, tmp_path)

    for owner in (bounded.id, free.id, "", "k-00000000"):
        meter.charge("requests", owner, 2.0)
        meter.charge("jobs", owner, 10.0)
        meter.charge("jobs", owner, 0.5)
        meter.charge("jobs", owner, 0.0)

    assert meter.to_json() == {
        owner: {"requests": 2.0, "jobs": 10.5}
        for owner in (bounded.id, free.id, "", "k-00000000")
    }
    left = allowance.left(page, bounded.caller())
    assert left == pytest.approx(60 - 12.5, abs=1)
    assert allowance.left(page, free.caller()) is None


def test_a_key_that_was_revoked_meanwhile_still_pays(tmp_path: Path) -> None:
    file, page = KeyFile(tmp_path), Page()
    key, _ = file.create("a", frozenset({Scope.ALGEBRA}), quota=Quota(work=60.0))
    file.revoke(key.id)

    Meter(page, tmp_path).charge("jobs", key.id, 100.0)

    left = allowance.left(page, key.caller())
    assert left is not None
    assert left < 0


def test_requests_are_charged_for_what_ran_also_when_it_failed() -> None:
    """Each its own part of a joined run; who fails, for the run that it had alone."""
    charged: list[tuple[str, float]] = []
    counters = Counters()
    batch = [
        ticket(Doubler(), rows(1, value), None, counters, None, Order(owner=owner))
        for owner, value in (("good", 1.0), ("bad", -1.0))
    ]

    run_batch(batch, lambda *one: charged.append(one))

    assert [owner for owner, _ in charged] == ["good", "bad"]
    assert all(seconds > 0 for _, seconds in charged)
    assert charged[0][1] == batch[0].future.result().work


def test_a_job_is_charged_slice_by_slice(tmp_path: Path) -> None:
    """So that what was computed is paid for, however the job ends."""
    bench, charged = Bench(tmp_path), []
    runner = bench.another(lambda *one: charged.append(one))
    job = bench.submit(steps=40)
    runner.start()
    try:
        ended = bench.ended(job)
    finally:
        runner.close()
        bench.scheduler.close()

    assert ended.status is Status.SUCCEEDED
    assert {owner for owner, _ in charged} == {job.owner}
    assert sum(seconds for _, seconds in charged) == pytest.approx(ended.seconds)
