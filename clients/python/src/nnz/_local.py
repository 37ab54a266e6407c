"""A server inside this process: its own event loop on a thread, no socket."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from concurrent.futures import Future
from importlib.metadata import entry_points
from typing import Any, TypeVar

import httpx2

from nnz._calls import EVENTS
from nnz._errors import LocalServerMissingError, NnzError
from nnz._local_stream import AsyncPieces, Exchange, SyncPieces

T = TypeVar("T")
Message = MutableMapping[str, Any]
App = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[Message]],
        Callable[[Message], Awaitable[None]],
    ],
    Awaitable[None],
]

URL = "http://nnz.local"
GROUP = "nnz.local"
#: How long a server that was never closed may hold up the end of the process.
LAST_SECONDS = 5.0


def open_app(options: Mapping[str, Any], group: str = GROUP) -> App:
    """Build the ASGI application that the server package offers.

    Args:
        options: Settings of the server.
        group: Entry points to look among.

    Raises:
        LocalServerMissingError: No installed package offers one.
    """
    found = next(iter(entry_points(group=group)), None)
    if found is None:
        raise LocalServerMissingError(
            "Client.local() needs the server in this environment: "
            "install the distribution nnz-server"
        )
    app: App = found.load()(**options)
    return app


class LocalServer:
    """Runs an ASGI application, lifespan included, on a thread of its own.

    Args:
        app: The application.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="nnz-local", daemon=True
        )
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self._asgi = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        self._thread.start()
        try:
            self._lifespan = self.run(self._start())
        except BaseException:  # Ctrl-C too: the thread must not stay behind
            self._stop_loop()
            raise
        atexit.register(self._abandon)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop and wait for it."""
        return self.spawn(work).result()

    def spawn(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the server's loop; give what will hold its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def answer(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        """Let the application answer; the response is complete on return.

        Raises:
            httpx2.ReadTimeout: The client's patience ended first.
        """
        seconds = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(seconds):
                return await self._answer(request, body)
        except TimeoutError as error:
            raise httpx2.ReadTimeout("no answer in time", request=request) from error

    async def _answer(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        copy = httpx2.Request(
            request.method,
            request.url,
            headers=request.headers,
            content=body,
            extensions=request.extensions,
        )
        response = await self._asgi.handle_async_request(copy)
        content = await response.aread()
        return httpx2.Response(
            response.status_code, headers=response.headers, content=content
        )

    def exchange(self, request: httpx2.Request) -> Exchange | None:
        """An exchange for a request whose answer goes on; None for the others."""
        if request.headers.get("accept") != EVENTS:
            return None
        return Exchange(self._app, request)

    def close(self) -> None:
        """Shut the application down and end the thread."""
        if self._loop.is_closed():
            return
        atexit.unregister(self._abandon)
        try:
            self.run(self._end())
        finally:
            self._stop_loop()

    async def _start(self) -> asyncio.Task[None]:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        await self._inbox.put({"type": "lifespan.startup"})
        task = asyncio.ensure_future(
            self._app(scope, self._inbox.get, self._outbox.put)
        )
        reply = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait({task, reply}, return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            reply.cancel()
            await task  # raises what ended it
            raise NnzError("the local server ended while it started")
        if reply.result()["type"] == "lifespan.startup.failed":
            raise NnzError(
                f"the local server did not start: {reply.result().get('message')}"
            )
        return task

    async def _end(self) -> None:
        await self._inbox.put({"type": "lifespan.shutdown"})
        await self._lifespan

    def _abandon(self) -> None:
        """End at the end of the process: nothing can run on a thread pool any more."""
        with contextlib.suppress(Exception):
            self.run(self._drop())
        self._stop_loop()

    async def _drop(self) -> None:
        self._lifespan.cancel()
        await asyncio.wait({self._lifespan}, timeout=LAST_SECONDS)
        if self._lifespan.done() and not self._lifespan.cancelled():
            self._lifespan.exception()  # seen, so that nobody complains about it

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Transport(httpx2.BaseTransport):
    """The in-process server seen by the blocking client.

    Args:
        server: Closed together with this transport.
    """

    def __init__(self, server: LocalServer) -> None:
        self._server = server

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        exchange = self._server.exchange(request)
        if exchange is None:
            return self._server.run(self._server.answer(request, request.read()))
        status, headers = self._server.run(exchange.begin())
        stream = SyncPieces(self._server, exchange)
        return httpx2.Response(status, headers=headers, stream=stream)

    def close(self) -> None:
        """End the server."""
        self._server.close()


class AsyncTransport(httpx2.AsyncBaseTransport):
    """The in-process server seen by the asynchronous client.

    Args:
        server: Closed together with this transport.
    """

    def __init__(self, server: LocalServer) -> None:
        self._server = server

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer one request."""
        exchange = self._server.exchange(request)
        if exchange is not None:
            begun = self._server.spawn(exchange.begin())
            status, headers = await asyncio.wrap_future(begun)
            stream = AsyncPieces(self._server, exchange)
            return httpx2.Response(status, headers=headers, stream=stream)
        body = await request.aread()
        return await asyncio.wrap_future(
            self._server.spawn(self._server.answer(request, body))
        )

    async def aclose(self) -> None:
        """End the server."""
        await asyncio.to_thread(self._server.close)
