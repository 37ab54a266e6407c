"""The clock of the machine is set while everything is under way: nothing notices."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest
import scipy.sparse as sp
from soak.conftest import Serve, put
from soak.load import callers, poisson, solved

from nnz import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DAY = 86400.0


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says by how many seconds the clock of a server is set."""
    file = tmp_path / "clock"
    set_by(file, 0.0)
    paths = [str(Path(__file__).with_name("clock")), os.environ.get("PYTHONPATH")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("CLOCK_SET_BY", str(file))
    return file


def set_by(clock: Path, seconds: float) -> None:
    aside = clock.with_suffix(".new")
    aside.write_text(str(seconds))
    aside.replace(clock)


def test_a_day_forward_and_back(serve: Serve, a: sp.csr_array, clock: Path) -> None:
    """Requests, jobs and processes go on; only dates follow the clock."""
    server = serve()
    name = put(server, a)
    pids = server.child("web"), server.child("worker")
    large = poisson(12000)
    rng = np.random.default_rng(0)
    asked = {}
    with Client(server.url) as client:
        stored = client.matrices.put(large)
        with callers(server.url, a, name, number=4, pause=0.01) as counts:
            for jump in (DAY, -DAY, 0.0):
                for _ in range(3):
                    b = rng.standard_normal(12000)
                    asked[client.jobs.cg(stored, b, rtol=1e-10).id] = b
                set_by(clock, jump)
                b = rng.standard_normal(12000)
                last = client.jobs.cg(stored, b, rtol=1e-10)
                asked[last.id] = b
                created = client.jobs.get(last.id).info.created
                assert abs(created - time.time() - jump) < 60.0  # it was really set
                check_wait(server.url, last.id)
                time.sleep(1.0)
        ended = {identity: client.jobs.get(identity) for identity in asked}
        for job in ended.values():
            job.wait(timeout=120.0)
        wrong = [
            i for i, b in asked.items() if not solved(large, ended[i].result().x, b)
        ]
        listed = httpx2.get(f"{server.url}/v1/jobs").json()["jobs"]

    print(f"clock set three times: {counts}")
    assert wrong == []
    assert {job["attempts"] for job in listed} == {1}  # nobody was taken for dead
    assert counts.good > 50
    assert counts.codes.keys() == {200}
    assert counts.faultless()
    assert pids == (server.child("web"), server.child("worker"))


def check_wait(url: str, job_id: str) -> None:
    """A long poll takes its second, unless the job ends before."""
    began = time.monotonic()
    job = httpx2.get(f"{url}/v1/jobs/{job_id}?wait=1", timeout=30).json()
    spent = time.monotonic() - began
    assert job["finished"] or 0.9 < spent < 10.0
