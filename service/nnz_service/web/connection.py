"""One HTTP/1.1 connection: uvicorn's, with bounds on what comes before a request.

Small requests of some kinds are answered here, without the application; those that
begin with the same bytes as the one before are not parsed again.
"""

from __future__ import annotations

import asyncio
import uuid
import weakref
from collections.abc import Callable
from typing import Any, cast

import orjson
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from nnz_service.web.direct import Direct
from nnz_service.web.exchange import EXCHANGE, Exchange
from nnz_service.web.heads import Head

#: Bytes that may arrive without completing a head or bringing a piece of a body. The
#: parser joins the parts of a header anew for each of them: without this bound a
#: single endless header would keep the process busy and grow it for ever.
MAX_HEAD = 64 << 10
#: Seconds for a head to become complete, and for what nobody reads any more to end.
HEAD_SECONDS = 20.0
#: Seconds for a small body to follow its head. The application, which counts what is
#: under way and asks how fast a body comes, gets the request then.
_BODY_SECONDS = 0.25


class Connection(HttpToolsProtocol):
    """Refuses endless heads, closes lingering ones, and answers every error as JSON."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._stalled = 0
        self._moved = False
        self._cut = _weak(self._abort)
        self._exchange = Exchange(self._cut)
        self._patience: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        # Whoever serves another application has none.
        state = getattr(self.app, "state", None)
        self._direct: Direct | None = getattr(state, "direct", None)
        self._held: RequestResponseCycle | None = None  # for `_direct`, incomplete
        self._head: Head | None = None  # of the newest request, if `_direct` took it
        self._inside = False  # whether the parser has begun a request, and not ended
        self._taken: RequestResponseCycle | None = None  # by `_direct`, the newest

    # uvicorn narrows the transport of asyncio's protocol
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._be_patient(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and what is under way for who has left; begin nothing more."""
        self._stop_waiting()
        while self.pipeline:
            self.pipeline.pop()[0].on_response = _nothing  # it held the connection
        running, self._running, self._held = self._running, None, None
        if running is not None and not running.response_complete:
            running.disconnected = True  # uvicorn knows the youngest request alone
            running.message_event.set()
            running.scope["state"][EXCHANGE].leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then look whether it came any further."""
        idle = not self._inside and not self._answering()
        if idle and self._head is not None and self._head.begins(data):
            self._again(self._head, data)
            return
        self._moved = False
        self._taken = None
        super().data_received(data)
        if self.transport.is_closing():
            return
        if idle and not self._inside and self._taken is self.cycle is not None:
            self._head = Head.of(data, dict(self.scope), self.cycle.keep_alive)
        self._stalled = 0 if self._moved else self._stalled + len(data)
        if self._stalled > MAX_HEAD:
            self._refuse(431, f"the head of the request passes {MAX_HEAD} bytes")
        elif self._held is not None:
            self._be_patient(_BODY_SECONDS)
        elif self._answering():
            self._stop_waiting()
        else:
            self._be_patient(HEAD_SECONDS)

    def _again(self, head: Head, data: bytes) -> None:
        """Begin to answer a request whose head is known; the parser hears nothing."""
        self._unset_keepalive_if_required()
        self._stop_waiting()
        self._stalled = 0
        self._exchange = Exchange(self._cut)
        self._exchange.received = True
        state = {**self.app_state, EXCHANGE: self._exchange}
        scope: Any = {**head.scope, "state": state}
        self.scope = scope
        self.cycle = self._running = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=head.keeps,
            on_response=self.on_response_complete,
        )
        self.cycle.body, self.cycle.more_body = head.body_of(data), False
        self.cycle.message_event.set()
        self._begin(self.cycle, cast(Direct, self._direct))

    def on_message_begin(self) -> None:
        """See `HttpToolsProtocol`."""
        self._inside = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See `HttpToolsProtocol`."""
        self._moved, self._head = True, None
        self._exchange = Exchange(self._cut)
        self.scope["state"][EXCHANGE] = self._exchange
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Have a request answered; which of several it is, is remembered."""
        self._running = cycle
        if self._direct is None or not self._direct.takes(cast(Scope, cycle.scope)):
            super()._start_asgi_task(cycle, app)
        elif cycle.more_body:
            self._held = cycle
            self._stop_waiting()  # for the head
        else:
            self._begin(cycle, self._direct)

    def _begin(self, cycle: RequestResponseCycle, direct: Direct) -> None:
        self._taken = cycle
        task = self.loop.create_task(_answered(cycle, direct, self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_body(self, body: bytes) -> None:
        """See `HttpToolsProtocol`."""
        self._moved = True
        heard = None if self.cycle.response_complete else self._exchange.take(body)
        if heard is None:
            super().on_body(body)
        elif heard:
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """See `HttpToolsProtocol`."""
        self._moved, self._inside = True, False
        self._exchange.received = True
        super().on_message_complete()
        held, self._held = self._held, None
        if held is not None and self._direct is not None:
            self._begin(held, self._direct)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(400, msg)

    def _refuse(self, status: int, text: str) -> None:
        """Answer, unless another answer has begun, and close."""
        if not (self._answering() and self.cycle.response_started):
            body = orjson.dumps({"error": text})
            head = (
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
                f"x-request-id: {uuid.uuid4().hex}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()

    def _abort(self) -> None:
        """Cut the connection, and forget what is still to be sent."""
        if self._answering():
            self.cycle.disconnected = True  # so that uvicorn does not miss the end
        self.transport.abort()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _be_patient(self, seconds: float) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        held, self._held = self._held, None
        if held is not None:
            super()._start_asgi_task(held, self.app)
        elif not self._answering():
            self.transport.close()


async def _answered(cycle: RequestResponseCycle, direct: Direct, app: Any) -> None:
    """Answer a request directly, or else by the application, and let the next begin."""
    try:
        if not await direct.answer(cycle):
            await cycle.run_asgi(app)
        elif cycle.response_complete:
            cycle.on_response()
    finally:
        if not cycle.response_complete:
            cycle.transport.close()
        cycle.on_response = _nothing  # it held the connection


def _nothing() -> None:
    pass


def _weak(method: Callable[[], None]) -> Callable[[], None]:
    """A method that does not hold its object.

    What a connection holds must not hold it: closed ones, with all that came over
    them, would stay until the garbage collector comes by.
    """
    reference = weakref.WeakMethod(method)

    def call() -> None:
        if (found := reference()) is not None:
            found()

    return call
