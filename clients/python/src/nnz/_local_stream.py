"""Answers of the in-process server that come in pieces: streams of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from nnz._local import App, LocalServer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class Exchange:
    """One request whose answer goes on; lives on the server's loop.

    Args:
        app: The ASGI application.
        request: Without a body.
    """

    def __init__(self, app: App, request: httpx2.Request) -> None:
        self._app = app
        self._request = request
        self._pieces: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._asked = False

    async def begin(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Send the request; returns status and headers of the answer."""
        self._task = asyncio.create_task(self._run())
        head = await self._pieces.get()
        if head is None:
            return 500, []
        return int(head["status"]), list(head.get("headers", []))

    async def piece(self) -> bytes | None:
        """The next piece of the body; None at its end."""
        while (message := await self._pieces.get()) is not None:
            if message.get("body"):
                return bytes(message["body"])
        return None

    async def end(self) -> None:
        """Leave, whether or not the answer is complete."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        url = self._request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._request.method,
            "headers": [(k.lower(), v) for k, v in self._request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.split(b"?")[0],
            "query_string": url.query,
            "server": (url.host, url.port),
            "client": ("127.0.0.1", 0),
            "root_path": "",
        }
        try:
            await self._app(scope, self._receive, self._pieces.put)
        finally:
            self._pieces.put_nowait(None)

    async def _receive(self) -> Message:
        if self._asked:
            await asyncio.Event().wait()  # who leaves cancels
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}


class SyncPieces(httpx2.SyncByteStream):
    """The body for the blocking client."""

    def __init__(self, server: LocalServer, exchange: Exchange) -> None:
        self._server = server
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        """Give pieces as they come."""
        while (piece := self._server.run(self._exchange.piece())) is not None:
            yield piece

    def close(self) -> None:
        """Leave."""
        self._server.run(self._exchange.end())


class AsyncPieces(httpx2.AsyncByteStream):
    """The body for the asynchronous client."""

    def __init__(self, server: LocalServer, exchange: Exchange) -> None:
        self._server = server
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give pieces as they come."""
        while True:
            coming = self._server.spawn(self._exchange.piece())
            if (piece := await asyncio.wrap_future(coming)) is None:
                return
            yield piece

    async def aclose(self) -> None:
        """Leave."""
        await asyncio.wrap_future(self._server.spawn(self._exchange.end()))
