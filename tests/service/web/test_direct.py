"""Requests that the connection answers itself: exactly as the application would."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import httpx2
import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from service.web.doubler import Doubler, running
from service.web.wire import LENGTH, send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from nnz_service.dataplane import Reply
from nnz_service.gateway import Drain, Limits
from nnz_service.web import connection
from nnz_service.web.direct import Direct

INFER = "/v2/models/double/infer"
X = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
BODY = orjson.dumps({"inputs": [X]})
DOUBLED = [2.0, 4.0, 6.0]
#: A field that the direct way leaves to the application.
ASIDE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
#: Of every answer, but never the same twice.
OWN = {"date", "server-timing", "x-request-id"}
SOON = 10.0


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests that went the direct way."""
    found: list[str] = []
    answer = Direct.answer

    async def watched(self: Direct, cycle: RequestResponseCycle) -> bool:
        found.append(cycle.scope["path"])
        return await answer(self, cycle)

    monkeypatch.setattr(Direct, "answer", watched)
    return found


@pytest.fixture
def http(server: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://{server}", timeout=30) as client:
        yield client


def raw(server: str) -> socket.socket:
    host, _, port = server.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=SOON)


def head(length: int, *fields: str, path: str = INFER) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}")
    return "\r\n".join((*lines, *fields, "", "")).encode()


def answer(sock: socket.socket) -> tuple[int, bytes]:
    """Read one answer whose length is said."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += sock.recv(1 << 16)
    start, _, body = found.partition(b"\r\n\r\n")
    length = int(start.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(1 << 16)
    assert len(body) == length
    return int(start.split()[1]), body


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (INFER, BODY, 200),
        (f"{INFER}?a=b", BODY, 200),
        ("/v2/models/double/versions/1/infer", BODY, 200),
        ("/v2/models/d%6fuble/infer", BODY, 200),
        ("/v2/models/double/versions/x/infer", BODY, 404),
        ("/v2/models/absent/infer", BODY, 404),
        ("/v2/models/a%2Fb/infer", BODY, 404),
        ("/v2/models//infer", BODY, 404),
        ("/v2/models/double/infer/", BODY, 404),
        (INFER, b"", 400),
        (INFER, b"{", 400),
        (INFER, b"[]", 400),
        (INFER, BODY.replace(b"FP32", b"FP99"), 400),
        (INFER, BODY.replace(b"[1,3]", b"[1,2]"), 400),
        (INFER, orjson.dumps({"inputs": [X], "parameters": {"timeout": -1}}), 400),
        ("/v1/ops/spmv", BODY, 400),
        ("/v1/ops/spmv?preflight=maybe", BODY, 400),
        ("/v1/ops/none", BODY, 404),
    ],
)
def test_as_the_application(
    http: httpx2.Client, path: str, body: bytes, status: int
) -> None:
    """Status, body and fields are the same, whichever way a request takes."""
    direct = http.post(path, content=body)
    aside = http.post(path, content=body, headers=ASIDE)

    assert direct.status_code == aside.status_code == status, direct.text
    assert direct.content == aside.content
    assert [
        {key: value for key, value in one.headers.items() if key not in OWN}
        for one in (direct, aside)
    ] == [{k: v for k, v in direct.headers.items() if k not in OWN}] * 2
    assert direct.headers.keys() >= {"x-request-id", "server-timing", "date"}


def test_which_way(http: httpx2.Client, taken: list[str]) -> None:
    """Small and usual is direct; nothing else is."""
    assert http.post(INFER, content=BODY).json()["outputs"][0]["data"] == DOUBLED
    assert taken == [INFER]

    for fields in (ASIDE, {"Origin": f"http://{http.base_url.netloc.decode()}"}):
        assert http.post(INFER, content=BODY, headers=fields).is_success
    assert http.post(INFER, content=iter([BODY])).is_success  # chunked
    assert send(http, INFER, {"x": np.ones((1 << 14, 3), "f4")}).is_success  # large
    assert http.post(f"{INFER}?a=b", content=BODY).is_success
    assert http.get("/v2").is_success
    assert taken == [INFER]


def test_counted_alike(http: httpx2.Client) -> None:
    """Metrics know no difference between the ways."""

    def counted() -> dict[str, float]:
        rows = http.get("/metrics").text.splitlines()
        wanted = ("nnz_http_requests_total", "nnz_http_request_seconds_count")
        pairs = (row.rpartition(" ") for row in rows if row.startswith(wanted))
        return {name: float(value) for name, _, value in pairs if "infer" in name}

    grown = []
    for fields in ({}, ASIDE):
        before = counted()
        for path in (INFER, "/v2/models/absent/infer"):
            http.post(path, content=BODY, headers=fields)
        after = counted()
        grown.append({k: v - before.get(k, 0.0) for k, v in after.items()})
    assert grown[0] == grown[1]
    assert sum(grown[0].values()) == 4
    assert "nnz_http_requests_inflight 1.0" in http.get("/metrics").text


def test_body_after_its_head(server: str, taken: list[str]) -> None:
    """Many clients send them one after the other."""
    with closing(raw(server)) as sock:
        for _ in range(3):
            sock.sendall(head(len(BODY)))
            time.sleep(0.02)
            sock.sendall(BODY[:9])
            time.sleep(0.02)
            sock.sendall(BODY[9:])
            assert answer(sock)[0] == 200
    assert taken == [INFER] * 3


def test_body_that_does_not_come(server: str, taken: list[str]) -> None:
    """It is the application's to wait for, with the bounds that hold for all."""
    with closing(raw(server)) as sock:
        sock.sendall(head(len(BODY)) + BODY[:9])
        time.sleep(2 * connection._BODY_SECONDS)
        sock.sendall(BODY[9:])
        assert answer(sock)[0] == 200
        sock.sendall(head(len(BODY)) + BODY)  # and the next is direct again
        assert answer(sock)[0] == 200
    assert taken == [INFER]


def test_one_after_the_other(server: str, taken: list[str]) -> None:
    """Requests that were sent before their turn are answered in order."""
    bodies = [BODY.replace(b"[1,2,3]", b"[%d,0,0]" % n) for n in range(20)]
    with closing(raw(server)) as sock:
        sock.sendall(b"".join(head(len(body)) + body for body in bodies))
        found = b""
        while found.count(b"HTTP/1.1 200") < 20 or not found.endswith(b"}"):
            found += sock.recv(1 << 16)
    answers = [part[: part.rindex(b"}") + 1] for part in found.split(b"\r\n\r\n")[1:]]
    data = [orjson.loads(one)["outputs"][0]["data"] for one in answers]
    assert data == [[2.0 * n, 0.0, 0.0] for n in range(20)]
    assert taken == [INFER] * 20


def test_mixed_with_the_others(server: str) -> None:
    """The ways take turns on one connection, in the order of the requests."""
    asking = b"GET /v2/models/double HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with closing(raw(server)) as sock:
        sock.sendall((head(len(BODY)) + BODY + asking) * 5)
        found = b""
        while found.count(b"HTTP/1.1 200") < 10 or not found.endswith(b"}"):
            found += sock.recv(1 << 16)
    kinds = [b'"outputs":[{"name":"y","datatype":"FP32","shape":[1,3],"data"' in part
             for part in found.split(b"HTTP/1.1 200")[1:]]  # fmt: skip
    assert kinds == [True, False] * 5


def test_last_on_its_connection(server: str, taken: list[str]) -> None:
    """Who asks for it gets the connection closed behind the answer."""
    with closing(raw(server)) as sock:
        sock.sendall(head(len(BODY), "Connection: close") + BODY)
        found = b""
        while chunk := sock.recv(1 << 16):
            found += chunk
    assert b"\r\nconnection: close\r\n" in found
    assert taken == [INFER]


def test_while_the_server_drains(
    make_app: Callable[..., FastAPI], taken: list[str]
) -> None:
    drain = Drain(begun=True)
    with running(make_app(drain=drain)) as address:
        found = httpx2.post(f"http://{address}{INFER}", content=BODY)
    assert found.status_code == 200
    assert found.headers["connection"] == "close"
    assert taken == [INFER]


def test_who_leaves_is_not_worked_for(server: str, doubler: Doubler) -> None:
    doubler.hold_for_ever = True
    with closing(raw(server)) as sock:
        sock.sendall(head(len(BODY)) + BODY)
        assert doubler.entered.wait(SOON)
    assert doubler.cancelled.wait(SOON)
    with httpx2.Client(base_url=f"http://{server}", timeout=30) as http:
        limit = time.monotonic() + SOON
        while "inflight 1.0" not in (text := http.get("/metrics").text):
            assert time.monotonic() < limit
        assert 'code="499"' in text


def test_slots_are_given_back(make_app: Callable[..., FastAPI]) -> None:
    """After answers, refusals and departures alike."""
    limits = Limits(max_inflight=1)
    with running(make_app(limits)) as address:
        for _ in range(3):
            with closing(raw(address)) as sock:
                sock.sendall(head(len(BODY)))
                time.sleep(0.01)
        with httpx2.Client(base_url=f"http://{address}", timeout=30) as http:
            for body in (BODY, b"{", BODY, BODY):
                assert http.post(INFER, content=body).status_code in (200, 400)


def test_full_is_a_refusal(make_app: Callable[..., FastAPI], doubler: Doubler) -> None:
    with running(make_app(Limits(max_inflight=1))) as address:
        doubler.hold_for_ever = True
        with closing(raw(address)) as sock:
            sock.sendall(head(len(BODY)) + BODY)
            assert doubler.entered.wait(SOON)
            with httpx2.Client(base_url=f"http://{address}", timeout=30) as http:
                refused = http.post(INFER, content=BODY)
                assert refused.status_code == 429
                assert refused.headers["retry-after"]
                assert "nnz_admission_refusals_total 1.0" in http.get("/metrics").text


def test_fault_is_told_without_its_text(
    http: httpx2.Client, doubler: Doubler, taken: list[str]
) -> None:
    doubler.broken = True
    found = http.post(INFER, content=BODY, headers={"X-Request-Id": "mine"})
    assert found.status_code == 500
    assert "mine" in found.json()["error"]
    assert "secret" not in found.text
    assert taken == [INFER]


@pytest.fixture
def wide(doubler: Doubler) -> bytes:
    """A request whose answer has 24 MiB."""
    y = np.zeros((1 << 21, 3), "f4")

    async def grow(params: object, tensors: object) -> object:
        return Reply({"name": "double", "version": "1"}, {"y": y}, {})

    # the one way to have the doubler answer something else
    doubler._infer = grow
    return orjson.dumps({"inputs": [X], "parameters": {"binary_data_output": True}})


def test_large_answer_that_nobody_takes_is_cut(
    make_app: Callable[..., FastAPI], wide: bytes
) -> None:
    """Its slot is free again after the time of a request."""
    with (
        running(make_app(Limits(max_inflight=1, request_timeout=0.5))) as address,
        httpx2.Client(base_url=f"http://{address}", timeout=30) as http,
        closing(raw(address)) as idle,
    ):
        idle.sendall(head(len(wide)) + wide)
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        limit = time.monotonic() + SOON
        while http.post(INFER, content=wide).status_code == 429:
            assert time.monotonic() < limit
        assert _read_all(idle) < 24 << 20


def test_no_answer_in_time_is_504(
    make_app: Callable[..., FastAPI], doubler: Doubler
) -> None:
    """Whatever it is that takes so long: here it does not look at its deadline."""

    async def sleep(params: object, tensors: object) -> object:
        await asyncio.sleep(60)

    doubler._infer = sleep
    with (
        running(make_app(Limits(request_timeout=0.3))) as address,
        httpx2.Client(base_url=f"http://{address}", timeout=30) as http,
    ):
        found = http.post(INFER, content=BODY)
        assert found.status_code == 504
        assert "no answer within 0.3 s" in found.json()["error"]


def test_large_answer_is_held_until_it_is_taken(
    make_app: Callable[..., FastAPI], wide: bytes
) -> None:
    """Who reads slowly keeps the slot: its answer is still in memory."""
    with (
        running(make_app(Limits(max_inflight=1))) as address,
        httpx2.Client(base_url=f"http://{address}", timeout=30) as http,
        closing(raw(address)) as slow,
    ):
        slow.sendall(head(len(wide)) + wide)
        slow.recv(100)
        assert http.post(INFER, content=wide).status_code == 429
        reading = threading.Thread(target=_read_all, args=(slow,))
        reading.start()
        limit = time.monotonic() + SOON
        while http.post(INFER, content=wide).status_code == 429:
            assert time.monotonic() < limit
        slow.shutdown(socket.SHUT_RDWR)
        reading.join(SOON)


def _read_all(sock: socket.socket) -> int:
    """Read until the other side ends it, somehow; return how many bytes came."""
    size = 0
    with suppress(ConnectionResetError):
        while piece := sock.recv(1 << 20):
            size += len(piece)
    return size


def test_idle_connections_keep_no_body(server: str) -> None:
    """Thousands of them would hold as many of the last ones."""
    with closing(raw(server)) as sock:
        port = sock.getsockname()[1]
        sock.sendall(head(len(BODY)) + BODY)
        assert answer(sock)[0] == 200
        (mine,) = [
            one
            for one in gc.get_objects()
            if isinstance(one, connection.Connection) and one.client[1:] == (port,)
        ]
        limit = time.monotonic() + SOON
        while mine.cycle.body:
            assert time.monotonic() < limit


def test_raw_tensor(http: httpx2.Client, taken: list[str]) -> None:
    x = np.array([[1, 2, 3]], "f4")
    found = http.post(INFER, content=x.tobytes(), headers={LENGTH: "0"})
    y = np.frombuffer(found.content[int(found.headers[LENGTH]) :], "f4")
    assert y.tolist() == DOUBLED
    assert taken == [INFER]
