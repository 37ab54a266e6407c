from __future__ import annotations

from pathlib import Path

import httpx2
import orjson
import pytest
from service.cli.conftest import Runner
from service.processes import Server, until

from nnz_service.keys import KeyFile, Keyring, Scope


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NNZ_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


CREATE = ("keys", "create", "--name", "alice", "--scope", "infer")


class TestCreate:
    def test_prints_the_secret_once(self, nnz: Runner, home: Path) -> None:
        done = nnz(*CREATE, "--scope", "algebra", "--expires", "90d", "--rate", "2.5")

        assert done.exit_code == 0, done.output
        secret = done.stdout.splitlines()[-1]
        caller = Keyring(None, home).caller(secret)
        assert caller.scopes == {Scope.INFER, Scope.ALGEBRA}
        (key,) = KeyFile(home).read().values()
        assert key.expires == pytest.approx(key.created + 90 * 86400)
        assert (key.name, key.quota.rate) == ("alice", 2.5)
        assert secret not in nnz("keys", "list").stdout

    def test_json(self, nnz: Runner, tmp_path: Path) -> None:
        given = ("--inflight", "3", "--work", "12", "--stored", "7000")

        document = nnz.json(*CREATE, *given, "--home", tmp_path)

        assert Keyring(None, tmp_path).caller(document["secret"]).id == document["id"]
        bounds = {"inflight": 3, "rate": None, "work": 12.0, "stored": 7000}
        assert document["quota"] == bounds
        assert "sha256" not in document

    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (("--scope", "root"), "there are infer, algebra, admin"),
            (("--expires", "soon"), "90d"),
            (("--expires", "0d"), "expires in 0.0 s"),
            (("--rate", "0"), "rate is 0"),
            (("--name", ""), "1 to 128"),
        ],
    )
    def test_wrong_values(
        self, nnz: Runner, home: Path, words: tuple[str, ...], reason: str
    ) -> None:
        done = nnz(*CREATE, *words)

        assert done.exit_code == 1
        assert reason in done.stderr
        assert not home.exists()

    def test_needs_a_scope(self, nnz: Runner, home: Path) -> None:
        assert nnz("keys", "create", "--name", "a").exit_code == 2


class TestListAndRevoke:
    def test_life_of_a_key(self, nnz: Runner, home: Path) -> None:
        made = nnz.json(*CREATE)
        nnz(*CREATE, "--expires", "1s")

        done = nnz("keys", "revoke", made["id"])

        assert done.exit_code == 0
        rows = nnz.json("keys", "list")["keys"]
        assert [row["disabled"] for row in rows] == [True, False]
        assert "revoked" in nnz("keys", "list").stdout
        assert not any({"sha256", "secret"} & row.keys() for row in rows)

    def test_unknown(self, nnz: Runner, home: Path) -> None:
        done = nnz("keys", "revoke", "k-00000000")

        assert done.exit_code == 1
        assert "there is no key 'k-00000000'" in done.stderr

    def test_no_file(self, nnz: Runner, home: Path) -> None:
        assert nnz.json("keys", "list") == {"keys": []}
        assert not home.exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_running_server_notices(nnz: Runner, tmp_path: Path) -> None:
    """The first key closes its door, and a revoked one opens it no more."""
    server = Server(tmp_path / "home")
    try:
        where = ("--home", server.home)
        until(lambda: _code(server, None) == 200)
        made = nnz.json(*CREATE, *where)

        until(lambda: _code(server, None) == 401)
        assert _code(server, made["secret"]) == 200

        nnz("keys", "revoke", made["id"], *where)
        until(lambda: _code(server, made["secret"]) == 401)
        lines = (server.home / "audit.jsonl").read_bytes().splitlines()
        assert {orjson.loads(line)["status"] for line in lines} == {401}
    finally:
        server.close()


def _code(server: Server, key: str | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        return httpx2.get(f"{server.url}/v1/models", headers=headers).status_code
    except httpx2.TransportError:
        return 0
