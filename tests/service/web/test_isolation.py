"""What one key has put, another neither sees nor uses nor removes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import orjson
import pytest
from service.web.doubler import running
from service.web.wire import as_npz, infer, poisson, send

from nnz_kernels.backends import Backend
from nnz_service.dataplane import Admission, InlineDataplane
from nnz_service.gateway import Limits
from nnz_service.jobs import SqlStore
from nnz_service.keys import AuditLog, KeyFile, Keyring, Scope
from nnz_service.repository import Repository
from nnz_service.web import create_app
from nnz_service.web.guard import Guard
from nnz_service.worker import Host, Toolbox

NPZ = {"Content-Type": "application/x-npz"}
#: Of a matrix that nobody has put.
ABSENT = "m-00000000deadbeef"


class House:
    """A server over the real worker, with two tenants and an admin."""

    def __init__(self, home: Path) -> None:
        self.home = home
        algebra = frozenset({Scope.INFER, Scope.ALGEBRA})
        file = KeyFile(home)
        self.secrets = {
            "ann": file.create("ann", algebra)[1],
            "bob": file.create("bob", algebra)[1],
            "admin": file.create("admin", frozenset({Scope.ADMIN}))[1],
        }
        self.repository = Repository(home)
        self.jobs = SqlStore(home / "catalog.sqlite")
        self.address = ""
        self._size = 10

    def app(self) -> Any:
        host = Host(self.repository, self.jobs, Toolbox(Backend.REFERENCE))
        limits = Limits()
        return create_app(
            limits=limits,
            dataplane=InlineDataplane(host),
            repository=self.repository,
            jobs=self.jobs,
            admission=Admission(limits.max_inflight, limits.max_inflight_bytes),
            guard=Guard(Keyring(None, self.home), AuditLog(self.home, 1 << 20)),
        )

    def client(self, who: str) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.secrets[who]}"}
        base = f"http://{self.address}"
        return httpx2.Client(base_url=base, headers=headers, timeout=60)

    def fresh(self) -> Any:
        """A matrix that nobody has put yet."""
        self._size += 1
        return poisson(self._size).tocsr()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("home"))
    with running(made.app()) as made.address:
        yield made
    made.repository.close()
    made.jobs.close()


@pytest.fixture
def ann(house: House) -> Iterator[httpx2.Client]:
    with house.client("ann") as client:
        yield client


@pytest.fixture
def bob(house: House) -> Iterator[httpx2.Client]:
    with house.client("bob") as client:
        yield client


@pytest.fixture
def admin(house: House) -> Iterator[httpx2.Client]:
    with house.client("admin") as client:
        yield client


def put(http: httpx2.Client, matrix: Any, name: str | None = None) -> httpx2.Response:
    params = {} if name is None else {"name": name}
    answer = http.post(
        "/v1/matrices", content=as_npz(matrix), headers=NPZ, params=params
    )
    assert answer.status_code in (200, 201), answer.text
    return answer


def listed(http: httpx2.Client) -> dict[str, str | None]:
    rows = http.get("/v1/matrices").json()["matrices"]
    return {row["id"]: row["name"] for row in rows}


def spmv(http: httpx2.Client, matrix: str, size: int) -> httpx2.Response:
    return send(http, "/v1/ops/spmv", {"x": np.ones(size)}, {"matrix": matrix})


def uses(size: int) -> dict[str, Callable[[httpx2.Client, str], httpx2.Response]]:
    """Every way to use or to see one matrix."""
    model = "/v2/models/{}"
    paths = ("", "/ready", "/stats", "/config", "/trace/setting", "/versions/1")
    looks = {
        path: lambda http, m, p=path: http.get(model.format(m) + p) for path in paths
    }
    return {
        **looks,
        "get": lambda http, m: http.get(f"/v1/matrices/{m}"),
        "spmv": lambda http, m: spmv(http, m, size),
        "infer": lambda http, m: infer(http, m, {"x": np.ones((1, size))}),
        "versioned": lambda http, m: infer(
            http, f"{m}/versions/1", {"x": np.ones((1, size))}
        ),
        "job": lambda http, m: send(
            http, "/v1/jobs", {"b": np.ones(size)}, {"matrix": m}, kind="cg"
        ),
    }


class TestOneOwner:
    def test_others_find_nothing(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client
    ) -> None:
        """Each way answers as for a matrix that is not there, to the letter."""
        matrix = house.fresh()
        mine = put(ann, matrix).json()["id"]

        for name, use in uses(matrix.shape[0]).items():
            theirs, absent = use(bob, mine), use(bob, ABSENT)
            assert theirs.status_code == absent.status_code == 404, name
            assert theirs.text.replace(mine, ABSENT) == absent.text, name
            assert use(ann, mine).status_code in (200, 202), name

    def test_others_cannot_delete(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client
    ) -> None:
        mine = put(ann, house.fresh()).json()["id"]

        theirs = bob.delete(f"/v1/matrices/{mine}")
        absent = bob.delete(f"/v1/matrices/{ABSENT}")

        assert theirs.status_code == absent.status_code == 404
        assert theirs.text.replace(mine, ABSENT) == absent.text
        assert ann.get(f"/v1/matrices/{mine}").status_code == 200

    def test_lists_and_counters(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client, admin: httpx2.Client
    ) -> None:
        mine = put(ann, house.fresh()).json()["id"]

        for path in ("/v2/models/stats", "/v1/stats"):
            text = {who: who.get(path).text for who in (ann, bob, admin)}
            assert mine in text[ann]
            assert mine in text[admin]
            assert mine not in text[bob]
        assert mine in listed(ann)
        assert mine in listed(admin)
        assert mine not in listed(bob)

    def test_metrics(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client, admin: httpx2.Client
    ) -> None:
        """Series of a matrix are there for who may see it, what failed on it too."""
        matrix = house.fresh()
        mine, size = put(ann, matrix).json()["id"], matrix.shape[0]
        assert infer(ann, mine, {"x": np.ones((1, size))}).is_success
        assert infer(ann, mine, {"x": np.ones((1, size + 1))}).is_client_error

        text = {who: who.get("/metrics").text for who in (ann, bob, admin)}

        own = f'servable="{mine}"'
        for who in (ann, admin):
            assert f'nnz_servable_rows_total{{{own},version="1"}} 1.0' in text[who]
            assert f'nv_inference_count{{model="{mine}",version="1"}} 1.0' in text[who]
            assert f'nnz_servable_failures_total{{reason="OTHER",{own}' in text[who]
        assert mine not in text[bob]
        for found in text.values():  # all matrices together are nobody's secret
            row = r'^nnz_http_requests_total\{code="200",.*/infer",servable="m-\*"\} '
            assert re.search(row, found, re.MULTILINE)
            assert not re.search(r'nnz_http.*servable="m-\w', found)
            assert 'nnz_jobs{status="queued"}' in found

    def test_audit_names_what_was_put(self, house: House, ann: httpx2.Client) -> None:
        mine = put(ann, house.fresh()).json()["id"]

        text = (house.home / "audit.jsonl").read_bytes().splitlines()[-1]
        line = orjson.loads(text)
        assert (line["action"], line["resource"]) == ("POST /v1/matrices", mine)


class TestTwoOwners:
    def test_each_has_their_own_share(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client
    ) -> None:
        """The second upload looks like a first one, and stores nothing."""
        matrix = house.fresh()
        size = matrix.shape[0]
        first = put(ann, matrix, "of ann")
        blobs = len(list((house.home / "blobs").iterdir()))

        second = put(bob, matrix, "of bob")

        assert first.status_code == second.status_code == 201
        assert put(bob, matrix).status_code == 200
        mine = first.json()["id"]
        assert len(list((house.home / "blobs").iterdir())) == blobs
        assert (listed(ann)[mine], listed(bob)[mine]) == ("of ann", "of bob")
        assert second.json()["created"] > first.json()["created"]
        assert ann.delete(f"/v1/matrices/{mine}").status_code == 204
        assert spmv(ann, mine, size).status_code == 404
        assert spmv(bob, mine, size).status_code == 200
        assert bob.delete(f"/v1/matrices/{mine}").status_code == 204
        assert spmv(bob, mine, size).status_code == 404
        with pytest.raises(Exception, match="there is no matrix"):
            house.repository.matrix(mine)

    def test_an_admin_deletes_for_all(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client, admin: httpx2.Client
    ) -> None:
        mine = put(ann, matrix := house.fresh()).json()["id"]
        put(bob, matrix)

        assert admin.delete(f"/v1/matrices/{mine}").status_code == 204

        assert {mine} & {*listed(ann), *listed(bob), *listed(admin)} == set()


class TestNobodys:
    def test_everybody_uses_it_and_only_an_admin_deletes_it(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client, admin: httpx2.Client
    ) -> None:
        """As an old home has them, or one that was used without keys."""
        matrix = house.fresh()
        shared = put(admin, matrix).json()["id"]
        with house.repository._engine.begin() as connection:
            connection.exec_driver_sql(
                f"DELETE FROM matrix_owners WHERE matrix = '{shared}'"  # noqa: S608 - our own id
            )

        assert put(bob, matrix, "renamed").status_code == 200
        for http in (ann, bob):
            assert listed(http)[shared] is None
            assert spmv(http, shared, matrix.shape[0]).status_code == 200
            refused = http.delete(f"/v1/matrices/{shared}")
            assert refused.status_code == 403
            assert "only an admin key" in refused.json()["error"]
        assert admin.delete(f"/v1/matrices/{shared}").status_code == 204


def test_the_hot_path_asks_no_database(
    house: House, ann: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = house.fresh()
    mine = put(ann, matrix).json()["id"]
    assert spmv(ann, mine, matrix.shape[0]).status_code == 200
    asked: list[str] = []
    look = Repository.matrix

    def counted(self: Repository, identity: str, *more: Any) -> Any:
        asked.append(identity)
        return look(self, identity, *more)

    monkeypatch.setattr(Repository, "matrix", counted)
    for _ in range(20):
        assert spmv(ann, mine, matrix.shape[0]).status_code == 200
        assert infer(ann, mine, {"x": np.ones((1, matrix.shape[0]))}).is_success

    assert asked == []
