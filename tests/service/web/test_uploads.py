"""Files on their way in: limits, compression, clients that leave."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from service.waiting import until
from service.web.doubler import running

from nnz_service.gateway import Limits

LIMIT = 1 << 20


@pytest.fixture(scope="module")
def app(make_app: Callable[..., FastAPI]) -> FastAPI:
    return make_app(Limits(max_upload=LIMIT, max_body=1000, body_timeout=0.5))


@pytest.fixture(scope="module")
def http(app: FastAPI) -> Iterator[httpx2.Client]:
    with (
        running(app) as address,
        httpx2.Client(base_url=f"http://{address}", timeout=30) as client,
    ):
        yield client


@pytest.fixture
def incoming(app: FastAPI) -> Path:
    """Where files lie while they come in."""
    staged: Path = app.state.parts.repository.blobs.staged()
    staged.unlink()
    return staged.parent


def pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 100_000):
        yield content[start : start + 100_000]


class TestLimit:
    @pytest.mark.parametrize("path", ["/v1/models/m", "/v1/matrices"])
    @pytest.mark.parametrize("chunked", [True, False])
    @pytest.mark.parametrize(("size", "codes"), [(LIMIT, {422}), (LIMIT + 1, {413})])
    def test_one_byte(
        self,
        http: httpx2.Client,
        incoming: Path,
        path: str,
        chunked: bool,
        size: int,
        codes: set[int],
    ) -> None:
        """The limit of uploads is its own; what passes it leaves nothing behind."""
        content = bytes(size)
        verb = "PUT" if "models" in path else "POST"

        answer = http.request(
            verb,
            path,
            content=pieces(content) if chunked else content,
            headers={"Content-Type": "application/x-npz"},
        )

        assert answer.status_code in codes, answer.text
        assert list(incoming.iterdir()) == []

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            pytest.param(gzip.compress(bytes(100 * LIMIT), 9), 413, id="bomb"),
            pytest.param(gzip.compress(bytes(1000))[:-4], 400, id="cut off"),
            pytest.param(b"no gzip", 400, id="no gzip"),
            pytest.param(gzip.compress(b"no model"), 422, id="no model"),
        ],
    )
    def test_compressed(
        self, http: httpx2.Client, incoming: Path, content: bytes, code: int
    ) -> None:
        """The limit holds for what a body unfolds to."""
        headers = {"Content-Encoding": "gzip"}

        answer = http.put("/v1/models/m", content=content, headers=headers)

        assert answer.status_code == code, answer.text
        assert list(incoming.iterdir()) == []


class TestDeparture:
    @pytest.mark.parametrize("stay", [True, False])
    async def test_nothing_stays(
        self, http: httpx2.Client, incoming: Path, stay: bool
    ) -> None:
        """A client that leaves or falls silent in the middle leaves no file."""
        host, port = http.base_url.host, http.base_url.port
        assert port is not None
        head = (
            b"PUT /v1/models/m HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\nhalf"
        )
        with socket.create_connection((host, port), timeout=10) as raw:
            raw.sendall(head)
            if stay:
                assert raw.recv(4096).startswith(b"HTTP/1.1 408 ")

        await until(lambda: not any(incoming.iterdir()))
