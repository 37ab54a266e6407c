"""Jobs that wait: of each caller so many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from service.web.doubler import running
from service.web.tenants import House, put
from service.web.wire import send

from nnz_service.gateway import Limits

MOST = 3


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, Limits(job_queue=MOST))
    with running(made.app()) as address:
        made.address = address
        yield made
    made.repository.close()
    made.jobs.close()


def submit(http: httpx2.Client, matrix: str, value: float) -> httpx2.Response:
    b = np.full(11, value)
    return send(http, "/v1/jobs", {"b": b}, {"matrix": matrix}, kind="cg")


def test_no_more_wait(house: House) -> None:
    """The next is refused, and nothing of it stays; others are not concerned."""
    a = house.fresh()
    with house.client("ann") as ann, house.client("bob") as bob:
        mine, theirs = (put(http, a).json()["id"] for http in (ann, bob))
        first = submit(ann, mine, 0.0)
        assert first.status_code == 202
        owner = house.jobs.get(first.json()["id"]).owner
        ann.get(f"/v1/jobs/{first.json()['id']}?wait=30")
        for _ in range(MOST):  # of a kind that nobody claims
            house.jobs.submit("waits", {}, owner=owner)
        blobs = sorted((house.home / "blobs").rglob("*"))

        refused = submit(ann, mine, 1.0)

        assert refused.status_code == 429, refused.text
        assert refused.json()["error"].startswith("3 of your jobs are queued")
        assert int(refused.headers["Retry-After"]) >= 1
        assert sorted((house.home / "blobs").rglob("*")) == blobs
        assert submit(bob, theirs, 1.0).status_code == 202
