"""An ASGI application behind a client, inside one process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from nnz import (
    AsyncClient,
    Client,
    LocalServerMissingError,
    NnzError,
    RequestTimeoutError,
    ServerError,
)
from nnz._local import AsyncTransport, LocalServer, Transport, open_app


class App:
    """Counts what happens to it; answers with what it was sent."""

    def __init__(self, broken: str = "") -> None:
        self.events: list[str] = []
        self.broken = broken

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if self.broken == "hangs":
            await asyncio.sleep(3600)
        if self.broken == "faulty":
            raise RuntimeError("a fault")
        message = await receive()
        head = {"name": "nnz", "version": str(len(message["body"]))}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(head).encode()})

    async def _live(self, receive: Any, send: Any) -> None:
        self.events.append((await receive())["type"])
        if self.broken == "raises":
            raise RuntimeError("no home")
        if self.broken == "disk full":
            await send({"type": "lifespan.startup.failed", "message": self.broken})
            return
        await send({"type": "lifespan.startup.complete"})
        self.events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


class TestLocalServer:
    def test_blocking(self) -> None:
        app = App()

        with Client("http://x", transport=Transport(LocalServer(app))) as client:
            assert client.server.metadata().version == "0"
            assert "nnz-local" in threads()

        assert app.events == ["lifespan.startup", "lifespan.shutdown"]
        assert "nnz-local" not in threads()

    def test_asynchronous(self) -> None:
        app = App()

        async def ask() -> list[str]:
            transport = AsyncTransport(LocalServer(app))
            async with AsyncClient("http://x", transport=transport) as client:
                several = [client.server.metadata() for _ in range(9)]
                return [info.name for info in await asyncio.gather(*several)]

        assert asyncio.run(ask()) == ["nnz"] * 9
        assert app.events == ["lifespan.startup", "lifespan.shutdown"]
        assert "nnz-local" not in threads()

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_patience_ends_as_it_does_on_a_network(self, kind: str) -> None:
        server = LocalServer(App("hangs"))
        start = time.monotonic()

        with pytest.raises(RequestTimeoutError, match=r"sent nothing for 0\.05 s"):
            self._ask(kind, server, timeout=0.05)

        assert time.monotonic() - start < 5

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_a_fault_is_an_answer_as_it_is_on_a_network(self, kind: str) -> None:
        with pytest.raises(ServerError) as caught:
            self._ask(kind, LocalServer(App("faulty")))

        assert caught.value.status == 500

    @staticmethod
    def _ask(kind: str, server: LocalServer, **options: Any) -> None:
        if kind == "sync":
            with Client("http://x", transport=Transport(server), **options) as client:
                client.server.metadata()
            return

        async def ask() -> None:
            transport = AsyncTransport(server)
            async with AsyncClient("http://x", transport=transport, **options) as c:
                await c.server.metadata()

        asyncio.run(ask())

    def test_closing_twice_is_fine(self) -> None:
        app = App()
        server = LocalServer(app)
        server.close()
        server.close()

        assert app.events == ["lifespan.startup", "lifespan.shutdown"]
        assert "nnz-local" not in threads()

    def test_a_start_that_fails_says_why(self) -> None:
        with pytest.raises(NnzError, match="did not start: disk full"):
            LocalServer(App("disk full"))

        assert "nnz-local" not in threads()

    def test_a_start_that_breaks_shows_its_error(self) -> None:
        with pytest.raises(RuntimeError, match="no home"):
            LocalServer(App("raises"))

        assert "nnz-local" not in threads()


class TestOpenApp:
    def test_without_the_server_package(self) -> None:
        with pytest.raises(LocalServerMissingError, match=r"install .* nnz-server"):
            open_app({}, group="nnz.absent")
