"""Web pages that a browser on the server's machine shows, where there are no keys."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from service.web.doubler import running

from nnz_service.keys import Keyring
from nnz_service.settings import Settings
from nnz_service.web.guard import Guard, guard_of

Make = Callable[..., FastAPI]
INFER = "/v2/models/double/infer"
BODY = {
    "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]
}


@pytest.fixture(scope="module")
def local(make_app: Make) -> Iterator[str]:
    """A server without keys that knows that it is on a loopback address."""
    guard = Guard(origins=("https://app.example",), local=True)
    with running(make_app(guard=guard)) as address:
        yield address


@pytest.mark.parametrize(
    ("origins", "origin", "code"),
    [
        ((), None, 200),
        ((), "https://evil.example", 403),
        ((), "null", 403),
        (("https://app.example",), "https://app.example", 200),
        (("https://app.example",), "https://evil.example", 403),
        (("*",), "https://evil.example", 200),
    ],
)
def test_without_keys_only_those_named(
    make_app: Make, origins: tuple[str, ...], origin: str | None, code: int
) -> None:
    """Any page could send requests to a server on the machine of its reader."""
    headers = {} if origin is None else {"Origin": origin}
    app = make_app(guard=Guard(origins=origins))
    with running(app) as address, httpx2.Client() as http:
        answer = http.post(f"http://{address}{INFER}", json=BODY, headers=headers)
        own = http.post(
            f"http://{address}{INFER}",
            json=BODY,
            headers={"Origin": f"http://{address}"},
        )

    assert answer.status_code == code
    assert own.status_code == 200


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("127.0.0.1:{port}", 200), ("127.9.9.9", 200), ("[::1]:{port}", 200),
        ("localhost:{port}", 200), ("LOCALHOST.", 200), ("nnz.localhost", 200),
        ("app.example:{port}", 200), ("evil.example:{port}", 403),
        ("localhost.evil.example", 403), ("10.0.0.1", 403), ("[", 403),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/docs"])
def test_names_made_to_lead_here(local: str, sent: str, code: int, path: str) -> None:
    """Such a page looks at what it likes, and its browser names no origin."""
    headers = {"Host": sent.format(port=local.rpartition(":")[2])}
    with httpx2.Client(base_url=f"http://{local}", headers=headers) as http:
        answer = http.get(path)
        probe = http.get("/v2/health/live")

    assert (answer.status_code, probe.status_code) == (code, 200)
    if code == 403:
        assert "NNZ_CORS_ORIGINS, or create keys" in answer.json()["error"]


@pytest.mark.parametrize(
    ("guard", "version", "code"),
    [
        (Guard(local=True), b"1.0\r\n", b"200"),
        (Guard(local=True), b"1.1\r\nHost: evil.example\r\n", b"403"),
        (Guard(), b"1.1\r\nHost: evil.example\r\n", b"200"),
        (Guard(origins=("*",), local=True), b"1.1\r\nHost: a\r\n", b"200"),
        (Guard(Keyring("k"), local=True), b"1.1\r\nHost: a\r\n"
         b"Authorization: Bearer k\r\n", b"200"),
    ],
)  # fmt: skip
def test_names_count_only_without_keys_on_loopback(
    make_app: Make, guard: Guard, version: bytes, code: bytes
) -> None:
    with running(make_app(guard=guard)) as address:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(b"GET /v2 HTTP/" + version + b"\r\n")
            answer = raw.recv(4096)

    assert answer.split()[1] == code


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("::1", True), ("192.0.2.1", False)]
)
def test_names_count_where_only_this_machine_connects(
    tmp_path: Path, host: str, local: bool
) -> None:
    assert guard_of(Settings(home=tmp_path, host=host)).local is local


def test_off_by_default(make_app: Make) -> None:
    with running(make_app(key="k")) as address, httpx2.Client() as http:
        answer = http.options(
            f"http://{address}{INFER}",
            headers={
                "Origin": "https://app.example",
                "Access-Control-Request-Method": "POST",
            },
        )

    assert answer.status_code == 401
    assert "access-control-allow-origin" not in answer.headers
