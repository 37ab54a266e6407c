"""Who may do what, over HTTP: keys, scopes, web pages, and what is written down."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import structlog
from fastapi import FastAPI
from service.web.doubler import running

from nnz_service.keys import AuditLog, KeyFile, Keyring, Scope
from nnz_service.web.guard import Guard

Make = Callable[..., FastAPI]
INFER = "/v2/models/double/infer"
BODY = {
    "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]
}
ENVIRONMENT = "sesame-of-the-environment"


class Door:
    """A server with keys, the secrets by scope, and its home."""

    def __init__(self, home: Path, *, keyless: bool = False) -> None:
        self.home = home
        self.file = KeyFile(home)
        self.ids: dict[str, str] = {}
        self.secrets = {"env": ENVIRONMENT}
        for scope in () if keyless else Scope:
            key, secret = self.file.create(scope.value, frozenset({scope}))
            self.ids[scope.value], self.secrets[scope.value] = key.id, secret
        self.address = ""

    def guard(self) -> Guard:
        keyring = Keyring(ENVIRONMENT, self.home)
        return Guard(keyring, AuditLog(self.home, 1 << 20), ("https://app.example",))

    def client(self, who: str | None, **headers: str) -> httpx2.Client:
        if who is not None:
            sent = self.secrets.get(who, who)
            headers["Authorization"] = f"Bearer {sent}"
        return httpx2.Client(
            base_url=f"http://{self.address}", headers=headers, timeout=30
        )

    def ask(
        self, who: str | None, method: str, path: str, **options: Any
    ) -> httpx2.Response:
        with self.client(who, **options.pop("headers", {})) as http:
            return http.request(method, path, **options)

    def audit(self) -> list[dict[str, Any]]:
        path = self.home / "audit.jsonl"
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def door(make_app: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    made = Door(tmp_path_factory.mktemp("keys"))
    with running(make_app(guard=made.guard())) as made.address:
        yield made


class TestScopes:
    @pytest.mark.parametrize("who", ["env", "admin", "infer"])
    def test_infer(self, door: Door, who: str) -> None:
        assert door.ask(who, "POST", INFER, json=BODY).status_code == 200

    @pytest.mark.parametrize(
        ("who", "method", "path", "needed"),
        [
            ("algebra", "POST", INFER, "infer"),
            ("algebra", "GET", "/v2/models/double", "infer"),
            ("infer", "POST", "/v1/ops/dot", "algebra"),
            ("infer", "GET", "/v1/jobs", "algebra"),
            ("infer", "GET", "/v2/models/m-0123456789abcdef", "algebra"),
            ("infer", "PUT", "/v1/models/net", "admin"),
            ("algebra", "DELETE", "/v1/models/net", "admin"),
            ("infer", "POST", "/v2/logging", "admin"),
            ("infer", "POST", "/v2/repository/models/double/unload", "admin"),
        ],
    )
    def test_forbidden(
        self, door: Door, who: str, method: str, path: str, needed: str
    ) -> None:
        """The answer names the scope that is missing, before the body is read."""
        answer = door.ask(who, method, path)

        assert answer.status_code == 403
        assert f"needs the scope {needed} and has {who}" in answer.json()["error"]
        assert "www-authenticate" not in answer.headers

    @pytest.mark.parametrize("who", ["infer", "algebra", "admin", "env"])
    @pytest.mark.parametrize("path", ["/v2", "/metrics", "/docs", "/openapi.json"])
    def test_any_key(self, door: Door, who: str, path: str) -> None:
        assert door.ask(who, "GET", path).status_code == 200

    @pytest.mark.parametrize(
        ("method", "path", "code"),
        [
            ("GET", "/nothing", 404),
            ("GET", "/v2/models/double/nothing", 404),
            ("GET", INFER, 405),
            ("POST", "/metrics", 405),
        ],
    )
    def test_what_is_not_there(
        self, door: Door, method: str, path: str, code: int
    ) -> None:
        """It is nobody's secret: who may come in is told."""
        assert door.ask("infer", method, path).status_code == code
        assert door.ask(None, method, path).status_code == 401

    def test_a_route_without_a_rule_is_closed(
        self, make_app: Make, tmp_path: Path
    ) -> None:
        door = Door(tmp_path)
        app = make_app(guard=door.guard())

        @app.get("/new")
        async def new() -> str:
            return "secret"

        app.state.api_routes.append(app.router.routes[-1])
        with running(app) as door.address:
            assert door.ask("infer", "GET", "/new").status_code == 403
            assert door.ask("admin", "GET", "/new").json() == "secret"

    @pytest.mark.parametrize(
        "path",
        ["/v1/models/..%2fmatrices", "/v1/matrices/..%2f..%2fv2", "/%76%31/models/n"],
    )
    def test_encoded_paths_open_nothing(self, door: Door, path: str) -> None:
        """The rule sees the path that the route sees."""
        assert door.ask("infer", "DELETE", path).status_code in (403, 404, 405)


class TestKeys:
    def test_alike(self, door: Door) -> None:
        """Unknown, expired and revoked keys get the same answer."""
        revoked, secret = door.file.create("gone", frozenset(Scope))
        door.file.revoke(revoked.id)
        _, expired = door.file.create("old", frozenset(Scope), expires=1e-6)

        answers = [
            door.ask(sent, "GET", "/v2")
            for sent in (secret, expired, "nnz_k-00000000_" + "A" * 43, "x")
        ]

        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.text for answer in answers}) == 1
        assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}

    def test_keyless_server_gets_its_first_key(
        self, make_app: Make, tmp_path: Path
    ) -> None:
        """From then on, at the latest a second later, keys are asked for."""
        now = [0.0]
        keyring = Keyring(None, tmp_path, ticks=lambda: now[0])
        door = Door(tmp_path, keyless=True)
        with running(make_app(guard=Guard(keyring))) as door.address:
            before = door.ask(None, "POST", INFER, json=BODY)
            _, secret = KeyFile(tmp_path).create("first", frozenset({Scope.INFER}))
            now[0] = 1.0
            without = door.ask(None, "POST", INFER, json=BODY)
            given = door.ask(secret, "POST", INFER, json=BODY)

        codes = [answer.status_code for answer in (before, without, given)]
        assert codes == [200, 401, 200]


class TestPages:
    """Web pages that a browser shows, whose requests carry their origin."""

    @pytest.mark.parametrize("path", [INFER, "/v1/models/net", "/v2/nothing"])
    def test_asks_first_without_a_key(self, door: Door, path: str) -> None:
        answer = door.ask(
            None,
            "OPTIONS",
            path,
            headers={
                "Origin": "https://app.example",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type, "
                "inference-header-content-length",
            },
        )

        assert answer.status_code == 200
        allowed = answer.headers["access-control-allow-origin"]
        assert allowed == "https://app.example"
        assert "access-control-allow-credentials" not in answer.headers

    @pytest.mark.parametrize("who", ["infer", None])
    def test_reads_the_answer(self, door: Door, who: str | None) -> None:
        """Errors too, so that the page can say what is wrong."""
        headers = {"Origin": "https://app.example"}

        answer = door.ask(who, "POST", INFER, json=BODY, headers=headers)

        assert answer.status_code == (401 if who is None else 200)
        allowed = answer.headers["access-control-allow-origin"]
        assert allowed == "https://app.example"
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert set(exposed) == {
            "Inference-Header-Content-Length", "Retry-After", "Server-Timing",
            "Upload-Length", "Upload-Offset", "X-Batch-Size", "X-Request-Id",
        }  # fmt: skip

    def test_strangers_read_nothing(self, door: Door) -> None:
        headers = {"Origin": "https://evil.example"}

        answer = door.ask("infer", "POST", INFER, json=BODY, headers=headers)

        assert "access-control-allow-origin" not in answer.headers


class TestAudit:
    @pytest.mark.parametrize(
        ("who", "method", "path", "route", "resource", "status"),
        [
            ("admin", "DELETE", "/v1/models/net?version=3",
             "/v1/models/{name}", "net/3", 404),
            ("admin", "POST", "/v2/repository/models/double/unload",
             "/v2/repository/models/{name}/unload", "double", 404),
            ("env", "POST", "/v2/logging", "/v2/logging", "", 200),
            ("algebra", "POST", "/v1/jobs/j-1/cancel",
             "/v1/jobs/{job_id}/cancel", "j-1", 404),
            ("admin", "PUT", "/v1/models/a%00b", "/v1/models/{name}", "a\0b", 422),
            ("infer", "PUT", "/v1/models/net", "/v1/models/{name}", "net", 403),
            ("infer", "GET", "/v1/jobs", "/v1/jobs", "", 403),
            ("wrong", "GET", "/v2", "/v2", "", 401),
            ("wrong", "POST", INFER, "/v2/models/{name}/infer", "double", 401),
        ],
    )  # fmt: skip
    def test_a_line_for_each_change_and_refusal(
        self, door: Door, who: str, method: str, path: str, route: str,
        resource: str, status: int,
    ) -> None:  # fmt: skip
        before = len(door.audit()) if (door.home / "audit.jsonl").exists() else 0

        answer = door.ask(who, method, path, headers={"X-Request-Id": "r-7"})

        assert answer.status_code == status
        (line,) = door.audit()[before:]
        del line["time"]
        assert line == {
            "event": "audit",
            "key": door.ids.get(who, "env" if who == "env" else ""),
            "action": f"{method} {route}",
            "resource": resource,
            "status": status,
            "request": "r-7",
            "client": "127.0.0.1",
        }

    def test_nothing_for_the_rest(self, door: Door) -> None:
        door.ask("wrong", "GET", "/v2")
        before = len(door.audit())

        for method, path in (
            ("POST", INFER),
            ("GET", "/v1/models"),
            ("POST", "/v2/repository/index"),
            ("POST", "/v1/ops/nothing"),
            ("POST", "/nothing"),
            ("GET", "/metrics"),
        ):
            assert door.ask("env", method, path).status_code not in (401, 403)

        assert len(door.audit()) == before


def test_no_secret_is_told(
    make_app: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever is logged, counted, audited or answered, keys are in none of it."""
    door = Door(tmp_path)
    lines: list[str] = []

    def keep(_logger: object, _method: str, event: dict[str, Any]) -> str:
        lines.append(repr(event))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, keep],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    wrong = "nnz_k-12345678_" + "W" * 43
    try:
        with running(make_app(guard=door.guard())) as door.address:
            told = _everything(door, [*door.secrets.values(), wrong, "WWrongWW"])
    finally:
        structlog.configure(**before)

    out, err = capfd.readouterr()
    assert any("'audit'" in line for line in lines)
    assert any("'request'" in line for line in lines)
    found = "\n".join(
        [*lines, *told, out, err, (door.home / "audit.jsonl").read_text()]
    )
    for secret in (*door.secrets.values(), wrong, "WWrongWW"):
        assert secret not in found
        assert secret[-20:] not in found
    for key in door.file.read().values():
        assert key.sha256 not in found


def _everything(door: Door, keys: list[str]) -> list[str]:
    paths = (
        ("GET", "/v2"), ("POST", INFER), ("PUT", "/v1/models/n"), ("GET", "/nothing"),
        ("POST", "/v1/jobs"), ("DELETE", "/v1/models/n"), ("GET", "/v1/jobs"),
    )  # fmt: skip
    told = []
    for key in keys:
        for method, path in paths:
            for value in (f"Bearer {key}", f"Basic {key}", key):
                with httpx2.Client(
                    base_url=f"http://{door.address}", timeout=30
                ) as http:
                    headers = {"Authorization": value}
                    answer = http.request(method, path, headers=headers)
                told += [answer.text, repr(answer.headers)]
        broken = {"Content-Encoding": "gzip"}
        content = gzip.compress(b"{")[:-3]
        told.append(door.ask(key, "POST", INFER, content=content, headers=broken).text)
    told.append(door.ask("env", "GET", "/metrics").text)
    return told
