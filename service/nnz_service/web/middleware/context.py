"""Request id, Server-Timing, metrics, the access log, and the answer of last resort."""

from __future__ import annotations

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nnz_service import logs
from nnz_service.errors import CLIENT_LEFT, ServiceError
from nnz_service.gateway import Drain
from nnz_service.web.account import Account
from nnz_service.web.exchange import exchange_of
from nnz_service.web.handlers import failure_answer, own_headers
from nnz_service.web.stages import Stages


class Context:
    """The layer around every request, outside of all but tracing.

    Args:
        app: The rest of the application.
        account: Of all requests.
        drain: Whether the process is on its way out.
    """

    def __init__(self, app: ASGIApp, account: Account, drain: Drain) -> None:
        self._app = app
        self._account = account
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the rest of the application with an id and a clock."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stages = self._account.begin(scope)
        answer = _Answer(send, stages, self._drain)
        with logs.bound(request=stages.request_id):
            try:
                await self._guarded(scope, receive, answer)
            finally:
                self._account.end(scope, stages, answer.status, answer.size)

    async def _guarded(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            return
        except Exception as exc:
            response = failure_answer(exc, answer.stages)
            if not answer.started:
                await response(scope, receive, answer)
                return
            _cut(scope)
            if not isinstance(exc, ServiceError):
                raise


def _cut(scope: Scope) -> None:
    """End the connection of an answer that cannot be ended well.

    Its client may never read: what it has not taken would be held for it for ever.
    """
    if (exchange := exchange_of(scope)) is not None:
        exchange.abort()


class _Answer:
    """`send`, with our headers added to the start of the answer."""

    def __init__(self, send: Send, stages: Stages, drain: Drain) -> None:
        self._send = send
        self._drain = drain
        self.stages = stages
        self.size = 0
        self.status = CLIENT_LEFT
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            # A connection that stays while we drain would be cut when it is idle.
            own = own_headers(self.stages, closing=self._drain.begun)
            message["headers"] = [*message.get("headers", ()), *own]
        else:
            self.size += len(message.get("body", b""))
        await self._send(message)
