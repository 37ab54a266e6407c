"""Bytes of matrices that a key may keep, whichever way they come to be."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from service.web.doubler import running
from service.web.tenants import House, listed, put, put_values
from service.web.wire import as_npz, poisson, send

from nnz_service.keys import KeyFile, Quota, Scope


@pytest.fixture
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client that may keep one matrix of `poisson`, and little more."""
    house = House(tmp_path_factory.mktemp("home"))
    house.secrets["cara"] = KeyFile(house.home).create(
        "cara", frozenset({Scope.ALGEBRA}), quota=Quota(stored=20_000)
    )[1]
    with running(house.app()) as house.address, house.client("cara") as http:
        yield http
    house.repository.close()
    house.jobs.close()


def test_every_way_is_bounded(narrow: httpx2.Client) -> None:
    mine = put(narrow, poisson(400)).json()["id"]
    two = {"matrix": mine, "other": mine}

    asked = send(narrow, "/v1/jobs", {}, {"op": "spgemm", **two}, kind="op").json()
    job = narrow.get(f"/v1/jobs/{asked['id']}?wait=30").json()
    answers = [
        narrow.post(
            "/v1/matrices",
            content=as_npz(poisson(380)),
            headers={"Content-Type": "application/x-npz"},
        ),
        send(narrow, "/v1/ops/spgemm", {}, two),
        put_values(narrow, mine, [2.0] * poisson(400).nnz),
    ]

    assert [answer.status_code for answer in answers] == [413] * 3
    for text in (*(answer.text for answer in answers), str(job["error"])):
        assert "delete some of its matrices" in text
    assert job["status"] == "failed"
    assert [*listed(narrow)] == [mine]

    narrow.delete(f"/v1/matrices/{mine}")

    # Of a chain all results are kept, or none.
    small = put(narrow, poisson(150)).json()["id"]
    steps = [
        {"as": f"times_{k}", "op": "add", "matrix": small, "other": small, "beta": k,
         "keep": True}
        for k in range(4)
    ]  # fmt: skip
    answer = send(narrow, "/v1/ops", {}, {}, steps=steps)
    assert answer.status_code == 413, answer.text
    assert [*listed(narrow)] == [small]
    narrow.delete(f"/v1/matrices/{small}")
    assert put(narrow, poisson(380)).status_code == 201
