"""What one key has put, another neither sees nor uses nor removes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import numpy as np
import orjson
import pytest
import scipy.sparse
from service.web.doubler import running
from service.web.tenants import ABSENT, NPZ, House, listed, put, put_values, spmv
from service.web.wire import infer, send

from nnz_service.repository import Repository
from nnz_service.web.sparse import SPARSE_OPS


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


def masked(http: httpx2.Client, mask: str, size: int) -> dict[str, Any]:
    """A product of matrices that are one's own, of which another says the part."""
    own = put(http, scipy.sparse.csr_array(np.eye(size))).json()["id"]
    return {"matrix": own, "other": own, "mask": mask}


def uses(
    size: int, entries: int
) -> dict[str, Callable[[httpx2.Client, str], httpx2.Response]]:
    """Every way to use or to see one matrix."""
    model = "/v2/models/{}"
    paths = ("", "/ready", "/stats", "/config", "/trace/setting", "/versions/1")
    looks = {
        path: lambda http, m, p=path: http.get(model.format(m) + p) for path in paths
    }
    return {
        **looks,
        "get": lambda http, m: http.get(f"/v1/matrices/{m}"),
        "load": lambda http, m: http.post(f"/v1/matrices/{m}/load"),
        "unload": lambda http, m: http.post(f"/v1/matrices/{m}/unload"),
        "spy": lambda http, m: http.get(f"/v1/matrices/{m}/spy"),
        "content": lambda http, m: http.get(f"/v1/matrices/{m}/content"),
        "chain": lambda http, m: send(
            http, "/v1/ops", {}, steps=[{"op": "norm", "matrix": m}]
        ),
        "op job": lambda http, m: send(
            http, "/v1/jobs", {}, {"op": "add", "matrix": m, "other": m}, kind="op"
        ),
        "chain job": lambda http, m: send(
            http, "/v1/jobs", {}, kind="chain", steps=[{"op": "norm", "matrix": m}]
        ),
        "factors": lambda http, m: send(
            http, "/v1/jobs", {}, {"matrix": m}, kind="factorize"
        ),
        "graph": lambda http, m: send(
            http, "/v1/jobs", {}, {"matrix": m, "algorithm": "components"}, kind="graph"
        ),
        "eigs": lambda http, m: send(
            http, "/v1/jobs", {}, {"matrix": m, "k": 1}, kind="eigs"
        ),
        "mask": lambda http, m: send(http, "/v1/ops/spgemm", {}, masked(http, m, size)),
        "mask of a job": lambda http, m: send(
            http, "/v1/jobs", {}, masked(http, m, size) | {"op": "spgemm"}, kind="op"
        ),
        "mask of a step": lambda http, m: send(
            http, "/v1/ops", {}, steps=[masked(http, m, size) | {"op": "spgemm"}]
        ),
        "values": lambda http, m: put_values(http, m, [1.0] * entries),
        "spmv": lambda http, m: spmv(http, m, size),
        "infer": lambda http, m: infer(http, m, {"x": np.ones((1, size))}),
        "versioned": lambda http, m: infer(
            http, f"{m}/versions/1", {"x": np.ones((1, size))}
        ),
        **{
            kind: lambda http, m, k=kind: send(
                http, "/v1/jobs", {"b": np.ones(size)}, {"matrix": m}, kind=k
            )
            for kind in ("cg", "solve")
        },
        "lp": lambda http, m: send(
            http, "/v1/jobs", {"c": np.ones(size)}, {"matrix": m}, kind="lp"
        ),
        **{op: operation(op, size) for op in SPARSE_OPS},
    }


def operation(op: str, size: int) -> Callable[[httpx2.Client, str], httpx2.Response]:
    """One of the operations on a matrix, or on it and itself."""
    x = np.ones((size, 2))
    inputs = {"sddmm": {"x": x, "y": x}, "triangular_solve": {"b": x}}.get(op, {})

    def use(http: httpx2.Client, matrix: str) -> httpx2.Response:
        names = {"matrix", "other"} & SPARSE_OPS[op]
        params: dict[str, Any] = dict.fromkeys(names, matrix)
        return send(http, f"/v1/ops/{op}", inputs, params)

    return use


class TestOneOwner:
    def test_others_find_nothing(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client
    ) -> None:
        """Each way answers as for a matrix that is not there, to the letter."""
        matrix = house.fresh()
        mine = put(ann, matrix).json()["id"]

        for name, use in uses(matrix.shape[0], matrix.nnz).items():
            theirs, absent = use(bob, mine), use(bob, ABSENT)
            assert theirs.status_code == absent.status_code == 404, name
            assert theirs.text.replace(mine, ABSENT) == absent.text, name
            assert use(ann, mine).status_code in (200, 201, 202), name

    def test_what_a_job_makes_is_its_askers(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client
    ) -> None:
        mine = put(ann, house.fresh()).json()["id"]
        params = {"op": "add", "matrix": mine, "other": mine}

        asked = send(ann, "/v1/jobs", {}, params, kind="op").json()["id"]
        job = ann.get(f"/v1/jobs/{asked}?wait=30").json()

        made = job["result"]["matrix"]["id"]
        assert ann.get(f"/v1/matrices/{made}").status_code == 200
        assert bob.get(f"/v1/matrices/{made}").status_code == 404

    def test_another_matrix_of_an_operation(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client
    ) -> None:
        """What is theirs cannot be multiplied with what is not, nor estimated."""
        matrix = house.fresh()
        mine, his = put(ann, matrix).json()["id"], put(bob, house.fresh()).json()["id"]

        for op in ("spgemm", "add"):
            for more in ({}, {"preflight": True}):
                params = {"matrix": his, **more}
                theirs, absent = (
                    send(bob, f"/v1/ops/{op}", {}, params | {"other": other})
                    for other in (mine, ABSENT)
                )
                assert theirs.status_code == absent.status_code == 404
                assert theirs.text.replace(mine, ABSENT) == absent.text

    def test_what_an_operation_makes_belongs_to_who_asked(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client
    ) -> None:
        """As do other values at the same places."""
        matrix = house.fresh()
        mine = put(ann, matrix).json()["id"]
        made = send(ann, "/v1/ops/transpose", {}, {"matrix": mine}).json()["matrix"]
        square = send(ann, "/v1/ops/spgemm", {}, {"matrix": mine, "other": mine})
        values = put_values(ann, mine, [2.0] * matrix.nnz)

        for found in (made["id"], square.json()["matrix"]["id"], values.json()["id"]):
            assert found in listed(ann)
            if found != mine:
                assert found not in listed(bob)
                assert bob.get(f"/v1/matrices/{found}").status_code == 404

    def test_pins_are_for_admins(
        self, house: House, ann: httpx2.Client, admin: httpx2.Client
    ) -> None:
        """What is pinned takes memory from everybody."""
        mine = put(ann, house.fresh()).json()["id"]

        for verb in ("pin", "unpin"):
            assert ann.post(f"/v1/matrices/{mine}/{verb}").status_code == 403
            assert admin.post(f"/v1/matrices/{mine}/{verb}").status_code == 200
            assert admin.post(f"/v1/matrices/{ABSENT}/{verb}").status_code == 404

    def test_uploads(
        self, house: House, ann: httpx2.Client, bob: httpx2.Client
    ) -> None:
        """Another's unfinished upload looks absent in every way to use it."""
        matrix = house.fresh()
        his = put(bob, matrix).json()["id"]
        mine = ann.post("/v1/uploads").json()["id"]
        absent = "u-" + "0" * 32
        ways: dict[str, Callable[[str], httpx2.Response]] = {
            "piece": lambda u: bob.patch(
                f"/v1/uploads/{u}", content=b"x", headers={"Upload-Offset": "0"}
            ),
            "head": lambda u: bob.head(f"/v1/uploads/{u}"),
            "delete": lambda u: bob.delete(f"/v1/uploads/{u}"),
            "matrix": lambda u: bob.post(f"/v1/matrices?upload={u}", headers=NPZ),
            "values": lambda u: bob.put(f"/v1/matrices/{his}/values?upload={u}"),
        }

        for name, use in ways.items():
            theirs, nobodys = use(mine), use(absent)
            assert theirs.status_code == nobodys.status_code == 404, name
            assert theirs.text.replace(mine, absent) == nobodys.text, name
        assert ann.head(f"/v1/uploads/{mine}").status_code == 204
        assert ann.delete(f"/v1/uploads/{mine}").status_code == 204

    def test_jobs(self, house: House, ann: httpx2.Client, bob: httpx2.Client) -> None:
        """A job, its result and its key for sending it again are its owner's."""
        matrix = house.fresh()
        mine, size = put(ann, matrix).json()["id"], matrix.shape[0]
        put(bob, matrix)
        inputs, params = {"b": np.ones(size)}, {"matrix": mine}
        headers = {"Idempotency-Key": "once"}

        def submit(http: httpx2.Client) -> str:
            answer = send(http, "/v1/jobs", inputs, params, headers, kind="solve")
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

        job, his = submit(ann), submit(bob)

        assert submit(ann) == job != his == submit(bob)
        absent, costs = "j" * len(job), {"c": np.ones(matrix.shape[1])}
        for path, verb in (
            ("", "GET"), ("?wait=1", "GET"), ("/result", "GET"), ("/events", "GET"),
            ("/cancel", "POST"), ("", "DELETE"),
        ):  # fmt: skip
            theirs, nobodys = (
                bob.request(verb, f"/v1/jobs/{one}{path}") for one in (job, absent)
            )
            assert theirs.status_code == nobodys.status_code == 404, path
            assert theirs.text.replace(job, absent) == nobodys.text, path
        theirs, nobodys = (
            send(bob, "/v1/jobs", costs, params | {"start": one}, kind="lp")
            for one in (job, absent)
        )
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.text.replace(job, absent) == nobodys.text

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
