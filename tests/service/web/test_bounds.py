"""Keys, limits, timeouts and clients that leave."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI, Request
from service.web.doubler import Doubler, running
from service.web.wire import send

from nnz_service.gateway import Limits
from nnz_service.web.bounds import rule_of

INFER = "/v2/models/double/infer"
LENGTH = "Inference-Header-Content-Length"
BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
).encode()

Make = Callable[..., FastAPI]


def client(address: str, **options: Any) -> httpx2.Client:
    return httpx2.Client(base_url=f"http://{address}", **options)


@pytest.fixture(scope="module")
def guarded(make_app: Make) -> Iterator[str]:
    with running(make_app(key="sesame")) as address:
        yield address


@pytest.fixture(scope="module")
def small(make_app: Make) -> Iterator[str]:
    with running(make_app(Limits(max_body=1000, max_json=900))) as address:
        yield address


class TestKey:
    @pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
    def test_health_is_open(self, guarded: str, path: str) -> None:
        """A probe needs no key."""
        with client(guarded) as http:
            assert http.get(path).status_code == 200

    @pytest.mark.parametrize(
        "path", ["/v2", "/metrics", "/docs", "/openapi.json", "/v1/models", "/nothing"]
    )
    @pytest.mark.parametrize(
        "header", [None, "Bearer wrong", "Basic sesame", "sesame", "Bearer", "Bearer é"]
    )
    def test_refused(self, guarded: str, path: str, header: str | None) -> None:
        """Everything else is a 401 without the right key, unknown paths too."""
        headers = {} if header is None else {"Authorization": header.encode()}
        with client(guarded) as http:
            answer = http.get(path, headers=headers)

        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]

    @pytest.mark.parametrize("header", ["Bearer sesame", "bearer sesame"])
    def test_let_in(self, guarded: str, header: str) -> None:
        """The right key opens."""
        with client(guarded) as http:
            answer = http.get("/v2", headers={"Authorization": header})

        assert answer.status_code == 200


class TestSize:
    @pytest.mark.parametrize(("size", "code"), [(1000, 200), (1001, 413)])
    @pytest.mark.parametrize("chunked", [True, False])
    def test_one_byte(self, small: str, size: int, code: int, chunked: bool) -> None:
        """The last byte that fits, and one more, with and without a length."""
        head = b'{"inputs":[{"name":"x","shape":[%d,3],"datatype":"FP32",'
        head += b'"parameters":{"binary_data_size":%d}}]}'
        rows = (size - 200) // 12
        text = head % (rows, 12 * rows)
        text += b" " * (size - len(text) - 12 * rows)
        content = text + bytes(12 * rows)
        pieces = iter([content[:100], content[100:]])

        with client(small) as http:
            answer = http.post(
                INFER,
                content=pieces if chunked else content,
                headers={LENGTH: str(len(text))},
            )

        assert len(content) == size
        assert answer.status_code == code
        if code == 413:
            assert "1000" in answer.json()["error"]

    @pytest.mark.parametrize(("size", "code"), [(900, 200), (901, 413)])
    def test_json(self, small: str, size: int, code: int) -> None:
        """The JSON part has a limit of its own."""
        with client(small) as http:
            answer = http.post(INFER, content=BODY.ljust(size))

        assert answer.status_code == code

    def test_refused_before_the_body(self, small: str) -> None:
        """A length that is too large is answered before a byte of the body is sent."""
        host, port = small.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(
                b"POST /v1/ops/dot HTTP/1.1\r\nHost: a\r\n"
                b"Content-Length: 99999999\r\n\r\n"
            )
            assert raw.recv(1000).startswith(b"HTTP/1.1 413 ")


class TestFull:
    def test_slots(self, make_app: Make, doubler: Doubler) -> None:
        """The request beyond the last slot is a 429 with Retry-After, at once."""
        doubler.hold_for_ever = True
        limits = Limits(max_inflight=1, request_timeout=2.0)
        with running(make_app(limits)) as address, client(address) as http:
            first = threading.Thread(
                target=http.post, args=(INFER,), kwargs={"content": BODY}
            )
            first.start()
            assert doubler.entered.wait(10)

            refused = http.post(INFER, content=BODY)
            health = http.get("/v2/health/live")
            first.join(10)
            doubler.hold_for_ever = False
            after = http.post(INFER, content=BODY)

        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert health.status_code == 200
        assert after.status_code == 200

    def test_bytes(self, make_app: Make) -> None:
        """A body that passes the bytes for all requests together is a 413."""
        limits = Limits(max_inflight_bytes=len(BODY))
        with running(make_app(limits)) as address, client(address) as http:
            fits = http.post(INFER, content=BODY)
            too_many = http.post(INFER, content=BODY + b" ")
            unknown = http.post(INFER, content=iter([BODY]))

        assert fits.status_code == 200
        assert too_many.status_code == 413
        assert unknown.status_code == 413


class TestTime:
    def test_deadline(self, make_app: Make, doubler: Doubler) -> None:
        """A request that takes longer than the timeout is a 504."""
        doubler.hold_for_ever = True
        limits = Limits(request_timeout=0.2)
        with running(make_app(limits)) as address, client(address) as http:
            answer = http.post(INFER, content=BODY)

        assert answer.status_code == 504
        assert answer.json()["error"]

    def test_slow_body(self, make_app: Make) -> None:
        """A body that stops arriving is a 408, and the connection ends."""
        limits = Limits(body_timeout=0.2)
        with running(make_app(limits)) as address:
            host, port = address.split(":")
            with socket.create_connection((host, int(port)), timeout=10) as raw:
                raw.sendall(
                    b"POST /v1/ops/dot HTTP/1.1\r\nHost: a\r\n"
                    b"Content-Length: 99\r\n\r\n{"
                )
                answer = b""
                while chunk := raw.recv(4096):
                    answer += chunk

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"after 1 bytes" in answer


class TestDeparture:
    def test_cancels(self, server: str, doubler: Doubler) -> None:
        """A client that leaves takes its request with it."""
        doubler.hold_for_ever = True
        with client(server, timeout=0.5) as http, pytest.raises(httpx2.ReadTimeout):
            http.post(INFER, content=BODY)

        assert doubler.entered.is_set()
        assert doubler.cancelled.wait(10)

    def test_is_disconnected(self, make_app: Make) -> None:
        """No layer of ours hides the client's departure from a route."""
        app = make_app()
        seen = threading.Event()

        @app.get("/watch")
        async def watch(request: Request) -> None:
            for _ in range(1000):
                if await request.is_disconnected():
                    seen.set()
                    return
                await asyncio.sleep(0.01)

        with running(app) as address:
            with (
                client(address, timeout=0.3) as http,
                pytest.raises(httpx2.ReadTimeout),
            ):
                http.get("/watch")
            assert seen.wait(10)


class TestHeaders:
    def test_request_id(self, server: str) -> None:
        """An id that was sent comes back; without one, or with a bad one, it is new."""
        with client(server) as http:
            echoed = http.get("/v2", headers={"X-Request-Id": "abc-1"})
            made = http.get("/v2")
            replaced = http.get("/nothing", headers={"X-Request-Id": "a b" * 100})

        assert echoed.headers["x-request-id"] == "abc-1"
        for answer in (made, replaced):
            assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])

    @pytest.mark.parametrize(
        "path", ["health/live", "health/ready", "models/double/ready"]
    )
    def test_probes_by_head(self, server: str, path: str) -> None:
        """Some load balancers ask without wanting a body."""
        with client(server) as http:
            assert http.head(f"/v2/{path}").status_code == 200

    def test_server_timing(self, server: str) -> None:
        """Every stage of a request is in Server-Timing, in milliseconds."""
        with client(server) as http:
            answer = http.post(INFER, content=BODY)

        found = dict(
            part.split(";dur=") for part in answer.headers["server-timing"].split(", ")
        )
        assert list(found) == [
            "receive", "parse", "queue", "compute", "encode", "total"
        ]  # fmt: skip
        assert float(found["compute"]) == 2.0
        assert float(found["total"]) > 0

    def test_metrics(self, make_app: Make) -> None:
        """Requests are counted by route, servable and code; unknown paths as one."""
        with running(make_app()) as address, client(address) as http:
            http.post(INFER, content=BODY)
            http.post(INFER, content=b"{")
            http.get("/one")
            http.get("/two")
            text = http.get("/metrics").text

        route = 'method="POST",route="/v2/models/{name}/infer"'
        counted = dict(re.findall(r"nnz_http_requests_total\{(.*)\} (\S+)", text))
        assert counted[f'code="200",{route},servable="double"'] == "1.0"
        assert counted[f'code="400",{route},servable=""'] == "1.0"
        assert counted['code="404",method="any",route="unmatched",servable=""'] == "2.0"
        assert "nnz_worker_up 1.0" in text
        assert 'nnz_servable_rows_total{servable="double",version="1"} 2.0' in text


class TestAnswers:
    def test_large_ones_count(self, make_app: Make) -> None:
        """What a slow client has yet to take is memory that all requests share."""
        x = np.zeros((100_000, 3), np.float32)
        limits = Limits(max_inflight_bytes=2 * x.nbytes - 1)
        with running(make_app(limits)) as address, client(address) as http:
            large = send(http, INFER, {"x": x})
            small = send(http, INFER, {"x": x[: len(x) // 4]})

        assert large.status_code == 413
        assert "that all requests share" in large.json()["error"]
        assert small.status_code == 200

    @pytest.mark.parametrize(
        ("method", "path"), [("POST", "/v1/uploads"), ("GET", "/v1/matrices/m/spy")]
    )
    def test_what_works_or_writes_has_a_slot(self, method: str, path: str) -> None:
        """So that rates and quotas count it."""
        assert rule_of(method, path, Limits()).reserve == 0
        assert rule_of("GET", "/v1/matrices/m", Limits()).reserve is None
