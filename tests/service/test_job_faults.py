"""A crash at any point loses no job that was acknowledged, and makes none twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse as sp
from service.postgres import PASSWORD, Postgres
from service.processes import SOON, START_SECONDS, Server, living, until
from soak.duration import SECONDS

from nnz import Client, RetryPolicy
from nnz_service.jobs import MAX_ATTEMPTS, SqlStore
from nnz_service.jobs.job import Job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: Until a process that ended is there again, kernels and all.
PATIENT = RetryPolicy(retries=60, first=1.0, longest=2.0)
RTOL = 1e-10


def poisson(side: int) -> sp.csr_array:
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    square = sp.kron(sp.eye_array(side), line) + sp.kron(line, sp.eye_array(side))
    return sp.csr_array(square)


class Site:
    """A server and the store behind it."""

    def __init__(self, home: Path, url: str | None = None, **settings: Any) -> None:
        if url is not None:
            settings["database_url"] = url
        self.server = Server(home, **settings)
        self._where = url or home / "catalog.sqlite"
        self._store: SqlStore | None = None

    @property
    def store(self) -> SqlStore:
        self._store = self._store or SqlStore(self._where)
        return self._store

    def client(self) -> Client:
        self.server.wait()
        return Client(self.server.url, retries=PATIENT)

    def kill(self, name: str) -> None:
        os.kill(self.server.child(name), signal.SIGKILL)

    def further(self, job_id: str, attempt: int, last: str | None) -> Job | None:
        """The job, once this attempt has a checkpoint of its own."""
        job = self.store.get(job_id)
        new = job.attempts == attempt and job.checkpoint not in (None, last)
        return job if new else None

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
        self.server.close()


@pytest.fixture
def sites() -> Iterator[list[Site]]:
    made: list[Site] = []
    yield made
    for site in made:
        site.close()


#: Faults, and the attempts that a job then takes.
FAULTS = {
    "job.after-commit:exit": 1,
    "job.before-reply:exit": 1,
    "job.after-claim:exit": 2,
    "job.before-checkpoint:full": 1,
    "job.mid-checkpoint:exit": 2,
    "job.before-result:full": 1,
    "job.after-result:exit": 2,
    "job.after-finish:exit": 1,
}
#: Where the two databases differ in what a crash leaves; a soak tries all on both.
ON_BOTH = {"job.after-commit:exit", "job.after-claim:exit", "job.mid-checkpoint:exit"}


def _cases() -> Iterator[tuple[str, str]]:
    for fault in FAULTS:
        yield fault, "sqlite"
        if fault in ON_BOTH or SECONDS >= 60:
            yield fault, "postgresql"


@pytest.mark.parametrize(("fault", "catalog"), [*_cases()], indirect=["catalog"])
def test_once_and_right(
    tmp_path: Path,
    database_url: str | None,
    sites: list[Site],
    fault: str,
) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    home = tmp_path / "home"
    settings = {"faults": fault, "faults_seen": seen}
    sites.append(site := Site(home, database_url, **settings))
    matrix = poisson(250)  # long enough for a checkpoint
    b = np.random.default_rng(0).standard_normal(matrix.shape[0])

    with site.client() as client:
        job = client.jobs.cg(client.matrices.put(matrix), b, rtol=RTOL)
        solved = job.result(START_SECONDS)

    assert [path.name for path in seen.iterdir()] == [fault.partition(":")[0]]
    assert [one.id for one in site.store.list()] == [job.id]
    assert np.linalg.norm(matrix @ solved.x - b) <= 1.01 * RTOL * np.linalg.norm(b)
    assert site.store.get(job.id).attempts == FAULTS[fault]


def test_a_worker_that_is_killed_all_the_time(
    tmp_path: Path, sites: list[Site]
) -> None:
    """Each attempt gets further, so that there is no end of attempts."""
    sites.append(site := Site(tmp_path / "home"))
    matrix = poisson(700)
    b = np.random.default_rng(0).standard_normal(matrix.shape[0])
    with site.client() as client:
        remote = client.matrices.put(matrix)
        asked = {"rtol": 1e-300, "maxiter": 10**6}
        job = client.jobs.cg(remote, b, **asked).id
        reached = []
        last: str | None = None
        for attempt in range(1, MAX_ATTEMPTS + 3):
            found = until(partial(site.further, job, attempt, last), START_SECONDS)
            reached.append(found.progress["iterations"])
            last = found.checkpoint
            site.kill("worker")
        running = client.jobs.get(job)

        assert running.status in {"queued", "running"}
        assert reached == sorted(set(reached))
        assert running.cancel().wait(START_SECONDS).status == "cancelled"


class TestPostgres:
    def test_it_goes_away_and_comes_back(
        self, tmp_path: Path, postgres: Postgres, sites: list[Site]
    ) -> None:
        """Calls say 503 and when to come back; a job under way goes on and ends."""
        sites.append(site := Site(tmp_path / "home", postgres.database()))
        matrix = poisson(400)
        b = np.random.default_rng(0).standard_normal(matrix.shape[0])
        with site.client() as client:
            remote = client.matrices.put(matrix)
            job = client.jobs.cg(remote, b, rtol=RTOL)
            until(lambda: site.store.get(job.id).progress)
            postgres.stop()
            try:
                for path in (f"/v1/jobs/{job.id}", "/v1/models", "/v1/jobs"):
                    answer = httpx2.get(f"{site.server.url}{path}", timeout=SOON)
                    assert answer.status_code == 503, answer.text
                    assert int(answer.headers["retry-after"]) >= 1
                    assert PASSWORD not in answer.text
                live = httpx2.get(f"{site.server.url}/v2/health/live", timeout=SOON)
                assert live.status_code == 200
                # Who starts meanwhile waits for it, too.
                site.kill("worker")
                time.sleep(2.0)
            finally:
                postgres.start()
            solved = client.jobs.get(job.id).result(START_SECONDS)

        residual = np.linalg.norm(matrix @ solved.x - b) / np.linalg.norm(b)
        assert residual <= 1.01 * RTOL

    def test_the_password_is_in_no_command_line(
        self, tmp_path: Path, postgres: Postgres, sites: list[Site]
    ) -> None:
        sites.append(site := Site(tmp_path / "home", postgres.database()))
        site.server.wait()
        pids = [site.server.process.pid]
        pids += [pid for _, pid in living(site.server.process.pid)]
        assert len(pids) >= 3

        for pid in pids:
            assert PASSWORD not in Path(f"/proc/{pid}/cmdline").read_text()

    def test_it_is_not_there_at_the_start(
        self, tmp_path: Path, postgres: Postgres
    ) -> None:
        """The server says why, without the password, and ends."""
        url = postgres.url("no_such_database")
        server = Server(tmp_path / "home", stderr=subprocess.PIPE, database_url=url)

        assert server.process.wait(SOON) == 1
        assert server.process.stderr is not None
        said = server.process.stderr.read()
        server.process.stderr.close()
        server.close()
        assert "no_such_database" in said
        assert PASSWORD not in said


def test_results_are_forgotten_in_time(tmp_path: Path, sites: list[Site]) -> None:
    """By the server itself; what is left on the disk is the matrix."""
    sites.append(site := Site(tmp_path / "home", job_ttl=1.0))
    with site.client() as client:
        remote = client.matrices.put(poisson(10))
        job = client.jobs.cg(remote, np.ones(100))
        job.result(START_SECONDS)

        def gone() -> bool:
            jobs: list[Job] = list(site.store.list())
            return jobs == []

        until(gone, 120.0)
        blobs = site.server.home / "blobs"  # swept after the rows of the jobs
        until(lambda: sum(path.is_file() for path in blobs.iterdir()) == 1)
