"""What nobody needs any more goes, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nnz_service.jobs import Retention, SqlStore, Status
from nnz_service.repository import Blob, Repository, bundles
from nnz_service.worker import Sweeper, sweeper


class Home:
    def __init__(self, folder: Path, database_url: str | None) -> None:
        self.repository = Repository(folder, database_url=database_url)
        self.blobs = self.repository.blobs
        where = database_url or folder / "catalog.sqlite"
        self.jobs = SqlStore(where)
        self._numbers = iter(range(100))

    def blob(self, *, old: bool = False) -> Blob:
        made = bundles.save(self.blobs, {"n": np.array(next(self._numbers))})
        if old:
            past = time.time() - 2 * sweeper.GRACE
            os.utime(made.path, (past, past))
        return made

    def ended(self) -> tuple[str, Blob, Blob]:
        """Id, input and result of a job that has succeeded."""
        inputs, result = self.blob(), self.blob()
        job_id = self.jobs.submit("cg", {}, inputs.sha256).id
        job = self.jobs.claim("w", ["cg"])
        assert job is not None
        done = {"result_sha": result.sha256, "result_bytes": result.bytes}
        self.jobs.finish(job.id, job.token, Status.SUCCEEDED, **done)
        return job_id, inputs, result


@pytest.fixture
def home(tmp_path: Path, database_url: str | None) -> Iterator[Home]:
    made = Home(tmp_path / "home", database_url)
    yield made
    made.repository.close()
    made.jobs.close()


def test_inputs_go_and_results_stay(home: Home) -> None:
    job_id, inputs, result = home.ended()

    Sweeper(home.repository, home.jobs, Retention()).sweep()

    assert not inputs.path.exists()
    assert result.path.exists()
    assert home.jobs.get(job_id).result_sha == result.sha256


def test_inputs_of_a_job_that_waits_stay(home: Home) -> None:
    inputs = home.blob()
    home.jobs.submit("cg", {}, inputs.sha256)

    Sweeper(home.repository, home.jobs, Retention()).sweep()

    assert inputs.path.exists()


def test_results_beyond_the_bound_go(home: Home) -> None:
    _, _, old = home.ended()
    second, _, young = home.ended()

    Sweeper(home.repository, home.jobs, Retention(bytes=young.bytes)).sweep()

    assert not old.path.exists()
    assert young.path.exists()
    assert [job.id for job in home.jobs.list()] == [second]


def test_what_a_crash_left_goes_after_a_while(home: Home) -> None:
    """A blob without a record may belong to a request that is still under way."""
    orphan, young, needed, model = (
        home.blob(old=True),
        home.blob(),
        home.blob(old=True),
        home.blob(old=True),
    )
    home.jobs.submit("cg", {}, needed.sha256)
    home.repository.put_model("m", None, model, {})
    unfinished = home.blobs.staged(".npz")
    os.utime(unfinished, (0, 0))
    busy = home.blobs.staged(".npz")

    Sweeper(home.repository, home.jobs, Retention()).sweep_blobs()

    kept = {blob: blob.path.exists() for blob in (orphan, young, needed, model)}
    assert kept == {orphan: False, young: True, needed: True, model: True}
    assert (unfinished.exists(), busy.exists()) == (False, True)


def test_it_sweeps_by_itself(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "EVERY", 0.01)
    _, inputs, _ = home.ended()
    made = Sweeper(home.repository, home.jobs, Retention())
    made.start()

    end = time.monotonic() + 10
    while inputs.path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)

    made.close()
    made.close()
    assert not made._thread.is_alive()


def test_one_that_never_began_ends(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that begins after its end sweeps nothing."""
    monkeypatch.setattr(sweeper, "EVERY", 0.0)
    _, inputs, _ = home.ended()
    made = Sweeper(home.repository, home.jobs, Retention())

    made.close()
    made.start()
    made.close()

    assert not made._thread.is_alive()
    assert inputs.path.exists()


class Clocks:
    """One that is set by hand now and then, and one that never is."""

    def __init__(self) -> None:
        self.set_by = 0.0
        self.passed = 0.0

    def wall(self) -> float:
        return time.time() + self.set_by + self.passed

    def ticks(self) -> float:
        return time.monotonic() + self.passed


@pytest.mark.parametrize("jump", [86400.0, -86400.0, 3.2e8])
def test_a_jump_of_the_clock_ages_nothing(home: Home, jump: float) -> None:
    """What is old only by a clock that was set stays until it is old by any."""
    clocks = Clocks()
    keep = Retention(seconds=1000.0)
    made = Sweeper(
        home.repository, home.jobs, keep, clock=clocks.wall, ticks=clocks.ticks
    )
    job_id, _, result = home.ended()
    orphan, unfinished = home.blob(), home.blobs.staged(".npz")
    past = time.time() - jump  # as it looks once the clock was set
    for path in (orphan.path, unfinished):
        os.utime(path, (past, past))

    clocks.set_by = jump
    made.sweep_blobs()
    made.sweep()
    assert orphan.path.exists()
    assert unfinished.exists()
    assert home.jobs.get(job_id).result_sha == result.sha256

    clocks.passed = 2 * sweeper.GRACE + max(-jump, 0.0)
    made.sweep_blobs()
    made.sweep()
    assert not result.path.exists()
    assert home.jobs.list() == []
    assert orphan.path.exists() == unfinished.exists() == (jump < 0)
