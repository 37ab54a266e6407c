"""Requests whose head came before on the connection: answered as if parsed again."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from service.web.doubler import Doubler, running
from service.web.test_direct import BODY, INFER, SOON, head, raw
from service.web.wire import LENGTH

from nnz_service.keys import KeyFile, Keyring, Scope
from nnz_service.web.connection import Connection
from nnz_service.web.guard import Guard
from nnz_service.web.heads import Head


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests whose head was parsed."""
    found: list[str] = []
    complete = Connection.on_headers_complete

    def watched(self: Connection) -> None:
        complete(self)
        found.append(self.scope["path"])

    monkeypatch.setattr(Connection, "on_headers_complete", watched)
    return found


@pytest.fixture
def sock(server: str, parsed: list[str]) -> Iterator[socket.socket]:
    """A connection; its parser knows who watches."""
    with closing(raw(server)) as made:
        yield made


def asking(data: str, *fields: str) -> bytes:
    """A request of one and the same length, whatever is in it."""
    body = BODY.replace(b"[1,2,3]", data.encode().ljust(20))
    return head(len(body), *fields) + body


def answers(sock: socket.socket, count: int = 1) -> list[tuple[int, bytes, Any]]:
    """Read answers: their status, their head, their JSON."""
    found, data = [], b""
    while len(found) < count:
        start, end, rest = data.partition(b"\r\n\r\n")
        fields = start.lower().partition(b"content-length: ")[2]
        if not end or len(rest) < (size := int(fields.split(b"\r\n")[0])):
            data += (more := sock.recv(1 << 16))
            assert more, "the connection was closed"
            continue
        found.append((int(start.split()[1]), start, orjson.loads(rest[:size])))
        data = rest[size:]
    assert not data
    return found


def numbers(one: tuple[int, bytes, Any]) -> list[float]:
    assert one[0] == 200, one[2]
    data: list[float] = one[2]["outputs"][0]["data"]
    return data


def test_each_has_its_own_answer(sock: socket.socket, parsed: list[str]) -> None:
    ids = set()
    for n in range(5):
        sock.sendall(asking(f"[{n},0,-1]"))
        (one,) = answers(sock)
        assert numbers(one) == [2 * n, 0, -2]
        ids.add(one[1].lower().partition(b"x-request-id: ")[2][:32])
    assert parsed == [INFER]
    assert len(ids) == 5


def test_bytes_after_the_same_json(sock: socket.socket, parsed: list[str]) -> None:
    """Tensors are what follows, not what followed before."""
    about = {"name": "x", "shape": [1, 3], "datatype": "FP32"}
    text = orjson.dumps({"inputs": [about | {"parameters": {"binary_data_size": 12}}]})
    first = head(len(text) + 12, f"{LENGTH}: {len(text)}")
    for n in range(3):
        sock.sendall(first + text + np.array([n, 1, 2], "<f4").tobytes())
        assert numbers(answers(sock)[0]) == [2 * n, 2, 4]
    assert parsed == [INFER]


def test_faults_are_found_in_each(sock: socket.socket, parsed: list[str]) -> None:
    """A good body says nothing about the next, nor a bad one."""
    for data, status in (
        ("[1,2,3]", 200),
        ("[1,2]", 400),
        ("[1,2,3]", 200),
        ("{", 400),
    ):
        sock.sendall(asking(data))
        assert answers(sock)[0][0] == status
    assert parsed == [INFER]


def test_another_head_is_parsed(sock: socket.socket, parsed: list[str]) -> None:
    for name in ("one", "two", "two"):
        sock.sendall(asking("[1,2,3]", f"X-Request-Id: {name}"))
        assert f"x-request-id: {name}".encode() in answers(sock)[0][1]
    sock.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answers(sock)[0][2]["name"] == "nnz"
    assert parsed == [INFER, INFER, "/v2"]


@pytest.mark.parametrize("cut", [1, 60, -9])
def test_in_two_parts(
    server: str, parsed: list[str], monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """What does not come as one piece is put together by the parser."""
    whole, cutting = Connection.data_received, False

    def received(self: Connection, data: bytes) -> None:
        for part in (data[:cut], data[cut:]) if cutting else (data,):
            whole(self, part)

    monkeypatch.setattr(Connection, "data_received", received)
    with closing(raw(server)) as sock:
        for n in range(4):
            cutting = n % 2 == 1
            sock.sendall(asking(f"[{n},0,0]"))
            assert numbers(answers(sock)[0]) == [2 * n, 0, 0]
    assert parsed == [INFER] * 4


def test_before_the_answer_of_the_last(sock: socket.socket) -> None:
    """Answers keep the order of the requests, however they arrive."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for n in range(40):
        sock.sendall(asking(f"[{n},0,0]"))
        if n % 3 == 2:
            sock.sendall(asking("[-1,0,0]") * 2)
    found = [numbers(one)[0] for one in answers(sock, 40 + 2 * 13)]
    assert found == [
        2 * x for n in range(40) for x in ([n, -1, -1] if n % 3 == 2 else [n])
    ]


def test_who_leaves_is_not_worked_for(
    server: str, doubler: Doubler, parsed: list[str]
) -> None:
    with closing(raw(server)) as sock:
        sock.sendall(asking("[1,2,3]"))
        assert answers(sock)[0][0] == 200
        doubler.hold_for_ever = True
        sock.sendall(asking("[1,2,3]"))
        assert doubler.entered.wait(SOON)
    assert doubler.cancelled.wait(SOON)
    assert parsed == [INFER]


def test_a_key_that_ends_meanwhile(
    make_app: Callable[..., FastAPI], tmp_path: Path, parsed: list[str]
) -> None:
    """Who may do what is asked each time."""
    keys = KeyFile(tmp_path)
    key, secret = keys.create("short", frozenset({Scope.INFER}))
    app = make_app(guard=Guard(Keyring(home=tmp_path)))
    with running(app) as address, closing(raw(address)) as sock:
        text = asking("[1,2,3]", f"Authorization: Bearer {secret}")
        for _ in range(2):
            sock.sendall(text)
            assert answers(sock)[0][0] == 200
        keys.revoke(key.id)
        limit = time.monotonic() + SOON
        status = 200
        while status == 200 and time.monotonic() < limit:
            sock.sendall(text)
            status = answers(sock)[0][0]
        assert status == 401
        assert parsed == [INFER]


def test_the_last_on_its_connection(server: str) -> None:
    with closing(raw(server)) as sock:
        for fields in ((), (), ("Connection: close",)):
            sock.sendall(asking("[1,2,3]", *fields))
            assert answers(sock)[0][0] == 200
        assert not sock.recv(1)


def test_after_another_request_none_is_kept(server: str, parsed: list[str]) -> None:
    """An idle connection holds the head of its last request at most."""
    with closing(raw(server)) as sock:
        for text in (asking("[1,2,3]"), b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            sock.sendall(text)
            assert answers(sock)[0][0] == 200
        sock.sendall(asking("[1,2,3]"))
        assert answers(sock)[0][0] == 200
    assert parsed == [INFER, "/v2", INFER]


def scope(length: int, fields: int = 0) -> dict[str, Any]:
    others = [(b"x", b"")] * fields
    return {"headers": [*others, (b"content-length", b"%d" % length)], "state": {}}


def test_what_a_head_is() -> None:
    data = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    found = Head.of(data, scope(3), keeps=True)
    assert found is not None
    assert "state" not in found.scope
    assert found.begins(data[:-3] + b"xyz")
    assert found.body_of(data[:-3] + b"xyz") == b"xyz"
    for other in (
        data[:-1],
        data + b"d",
        data.replace(b"POST", b"PUT "),
        b"",
        data * 2,
    ):
        assert not found.begins(other)


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\nContent-Length: 3\n\nabc",
        b"POST / HTTP/1.1\r\nContent-Length: 3\n\r\nabc",
        b"POST / HTTP/1.1\nContent-Length: 7\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\r\n",
        b"\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nX: %s\r\nContent-Length: 3\r\n\r\nabc" % (b"x" * 4096),
    ],
)
def test_no_head_is_kept(data: bytes) -> None:
    """Where it ends must be beyond doubt, and idle connections hold little."""
    assert Head.of(data, scope(3), keeps=True) is None


def test_no_head_of_many_fields_is_kept() -> None:
    data = b"POST / HTTP/1.1\r\n%sContent-Length: 3\r\n\r\nabc" % (b"x:\r\n" * 40)
    assert Head.of(data, scope(3, fields=40), keeps=True) is None
