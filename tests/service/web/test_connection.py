"""What comes before a request is whole, on raw sockets."""

from __future__ import annotations

import gc
import socket
import time

import orjson
import pytest

from nnz_service.web import connection

PIECE = b"a" * (16 << 10)
SOON = 10.0


def connect(server: str) -> socket.socket:
    host, _, port = server.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=SOON)


def everything(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    found = b""
    while chunk := sock.recv(1 << 16):
        found += chunk
    return found


def refusal(answer: bytes) -> tuple[int, str]:
    """Status and reason of the last answer."""
    head, _, body = answer.rpartition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert b"x-request-id: " in head
    status = head[head.rindex(b"HTTP/1.1 ") :].split()[1]
    return int(status), orjson.loads(body)["error"]


POST = b"POST /v2/repository/index HTTP/1.1\r\nHost: a\r\n"
#: A second request, hidden where a proxy may see a body.
HIDDEN = b"DELETE /v1/models/net HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\nContent-Length: 2",
        b"Content-Length: 2\r\nContent-Length: 50",
        b"Content-Length: 2, 2",
        b"Content-Length: +2",
        b"Content-Length: 0x2",
        b"Content-Length: 99999999999999999999999",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding:\x0bchunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\r\n chunked",
        b"X: a\r\n Content-Length: 2",
        b"X: a\0b",
        b"X: a\nContent-Length: 2",
    ],
)
def test_where_a_body_ends_is_never_guessed(server: str, framing: bytes) -> None:
    """What two readers may read differently is a 400, and what follows is not read."""
    with connect(server) as sock:
        sock.sendall(POST + framing + b"\r\n\r\n0\r\n\r\n" + HIDDEN)
        answer = everything(sock)
    status, reason = refusal(answer)
    assert status == 400
    assert reason
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("chunk", [b"-1", b"0x2", b"f" * 20, b"2\n{}", b"2 ;\0"])
def test_broken_chunks(server: str, chunk: bytes) -> None:
    with connect(server) as sock:
        sock.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"\r\n")
        answer = everything(sock)
    assert refusal(answer)[0] == 400


def test_thousands_of_headers(server: str) -> None:
    """They cost their bytes and no more."""
    with connect(server) as sock:
        sock.sendall(
            b"GET /v2 HTTP/1.1\r\nConnection: close\r\n" + b"A: b\r\n" * 5000 + b"\r\n"
        )
        assert everything(sock).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "text",
    [
        b"GARBAGE\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHo st: x\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"POST /v2/repository/index HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    ],
)
def test_not_http(server: str, text: bytes) -> None:
    """What the parser refuses is answered like every other error."""
    with connect(server) as sock:
        sock.sendall(text)
        status, reason = refusal(everything(sock))
    assert status == 400
    assert reason


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        b"GET /v2 HTTP/1.1\r\nX: ",
        b"GET /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 9000 + b"X: ",
        b"POST /v2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: ",
    ],
    ids=["url", "value", "many", "trailer"],
)
def test_endless_head(server: str, start: bytes) -> None:
    """A head without an end is cut off: 431, or nothing behind an answer."""
    sent = len(start)
    with connect(server) as sock:
        try:
            sock.sendall(start)
            while sent < 100 * connection.MAX_HEAD:
                sock.sendall(PIECE)
                sent += len(PIECE)
        except OSError:
            pass
        assert sent < 100 * connection.MAX_HEAD


def test_long_head_is_answered(server: str) -> None:
    """The refusal says what the bound is."""
    with connect(server) as sock:
        sock.sendall(b"GET /v2 HTTP/1.1\r\nX: " + b"a" * connection.MAX_HEAD)
        status, reason = refusal(everything(sock))
    assert status == 431
    assert str(connection.MAX_HEAD) in reason


def test_head_below_the_bound(server: str) -> None:
    """Long is not endless."""
    with connect(server) as sock:
        sock.sendall(b"GET /v2 HTTP/1.1\r\nConnection: close\r\nX: ")
        for _ in range(3):
            sock.sendall(PIECE)
        sock.sendall(b"\r\n\r\n")
        assert everything(sock).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "start",
    [b"", b"GET /v2 HT", b"PUT /nowhere HTTP/1.1\r\nContent-Length: 9999\r\n\r\nxx"],
    ids=["silent", "half", "answered"],
)
def test_lingering(server: str, start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that get nowhere do not stay for ever, even when they trickle."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    with connect(server) as sock:
        sock.sendall(start)
        limit = time.monotonic() + SOON
        try:
            while time.monotonic() < limit:
                sock.settimeout(0.05)
                try:
                    if not sock.recv(1 << 16):
                        return
                except TimeoutError:
                    if start:
                        sock.sendall(b"x")
        except ConnectionError:
            return
    pytest.fail("the connection stayed")


def test_slow_answer_is_no_lingering(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a request is being answered, nobody is impatient with its connection."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)
    with connect(server) as sock:
        sock.sendall(
            b"POST /v2/repository/index HTTP/1.1\r\nConnection: close\r\n"
            b"Content-Length: 2\r\n\r\n{"
        )
        time.sleep(0.4)
        sock.sendall(b"}")
        assert everything(sock).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("times", [1, 3], ids=["one request", "pipelined"])
@pytest.mark.parametrize("whole", [True, False], ids=["answered", "left"])
def test_a_closed_connection_holds_nothing(
    server: str, times: int, whole: bool
) -> None:
    """Nobody waits for the garbage collector, which would let a flood pile up."""
    request = POST + b"Content-Length: 2\r\n\r\n{}"

    def connections() -> int:
        return sum(isinstance(one, connection.Connection) for one in gc.get_objects())

    limit = time.monotonic() + SOON
    gc.collect()
    gc.disable()
    try:
        before = connections()
        for _ in range(5):
            with connect(server) as sock:
                sock.sendall(request * times)
                if whole:
                    sock.shutdown(socket.SHUT_WR)
                    everything(sock)
        while connections() > before:
            assert time.monotonic() < limit
            time.sleep(0.05)
    finally:
        gc.enable()
