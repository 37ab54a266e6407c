"""What was computed for a key: counted, charged to its quota, and told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
import scipy.sparse
from prometheus_client.parser import text_string_to_metric_families
from service.web.doubler import running
from service.web.tenants import House, put
from service.web.wire import read, send

from nnz_service.dataplane import allowance
from nnz_service.keys import KeyFile, Quota, Scope
from nnz_service.keys.key import Key, id_in

Bounded = tuple[Key, httpx2.Client]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("home"))
    for name in ("carl", "dora", "emil"):
        made.secrets[name] = KeyFile(made.home).create(
            name, frozenset({Scope.ALGEBRA}), quota=Quota(work=60.0)
        )[1]
    with running(made.app()) as made.address:
        yield made
    made.repository.close()
    made.jobs.close()


@pytest.fixture
def bounded(house: House) -> Iterator[Bounded]:
    """A key, unused, that may compute for a minute a minute, and its client."""
    unused = {"carl", "dora", "emil"} & house.secrets.keys()
    secret = house.secrets.pop(min(unused))
    key = KeyFile(house.home).read()[id_in(secret) or ""]
    house.secrets["one"] = secret
    with house.client("one") as client:
        yield key, client


def seconds(http: httpx2.Client, key: str) -> dict[str, float]:
    rows = {row.pop("key"): row for row in http.get("/v1/usage").json()["keys"]}
    return rows[key]


def test_a_chain_that_fails_half_way_is_paid_for(bounded: Bounded) -> None:
    """Its first step was computed; the second has no factors to solve with."""
    key, http = bounded
    a = put(http, scipy.sparse.csr_array([[1.0, 2], [0, 0]])).json()["id"]
    before = seconds(http, key.id)["requests"]

    answer = send(
        http, "/v1/ops", {"b": np.ones(2)},
        steps=[
            {"as": "aa", "op": "spgemm", "matrix": a, "other": a, "keep": True},
            {"op": "triangular_solve", "matrix": "aa", "inputs": {"b": "b"}},
        ],
    )  # fmt: skip

    assert answer.status_code == 422, answer.text
    assert "step2" in answer.json()["error"]
    assert seconds(http, key.id)["requests"] > before


def test_a_job_is_paid_for_and_its_result_can_be_fetched(
    house: House, bounded: Bounded
) -> None:
    """Even by who has used up all; what computes is refused until later."""
    key, http = bounded
    a = put(http, scipy.sparse.csr_array(3.0 * np.eye(4))).json()["id"]
    job = send(http, "/v1/jobs", {"b": np.ones(4)}, {"matrix": a}, kind="solve").json()[
        "id"
    ]
    job = http.get(f"/v1/jobs/{job}", params={"wait": 30}).json()
    assert job["status"] == "succeeded"

    told = http.get("/v1/usage").json()
    assert told["key"] == key.id
    bounds = {"inflight": None, "rate": None, "work": 60.0, "stored": None}
    assert told["quota"] == bounds
    assert told["keys"][0]["jobs"] == pytest.approx(job["seconds"])
    assert told["keys"][0]["jobs"] > 0
    assert 0 < told["work_left"] <= 60

    allowance.charge(house.page, key.caller(), 120.0)
    refused = send(http, "/v1/ops/spmv", {"x": np.ones(4)}, {"matrix": a})
    fetched = http.get(f"/v1/jobs/{job['id']}/result")

    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 1
    assert fetched.status_code == 200
    np.testing.assert_allclose(read(fetched)["x"], 1 / 3)
    assert http.get("/v1/usage").json()["work_left"] < 0


def test_others_are_seen_by_admins_alone(house: House, bounded: Bounded) -> None:
    """In /v1/usage and in /metrics; /v1/stats tells nobody."""
    key, http = bounded
    a = put(http, house.fresh()).json()["id"]
    x = np.ones(http.get(f"/v1/matrices/{a}").json()["shape"][1])
    assert send(http, "/v1/ops/spmv", {"x": x}, {"matrix": a}).status_code == 200

    with house.client("bob") as bob, house.client("admin") as admin:
        assert [row["key"] for row in bob.get("/v1/usage").json()["keys"]] == [
            bob.get("/v1/usage").json()["key"]
        ]
        assert seconds(admin, key.id)["requests"] > 0
        assert key.id not in bob.get("/metrics").text
        assert key.id not in admin.get("/v1/stats").text
        assert counted(http, key.id) == counted(admin, key.id)


def counted(http: httpx2.Client, key: str) -> dict[str, Any]:
    return {
        sample.labels["kind"]: sample.value
        for family in text_string_to_metric_families(http.get("/metrics").text)
        for sample in family.samples
        if sample.name == "nnz_key_computing_seconds_total"
        and sample.labels["key"] == key
    }
