"""Request id, Server-Timing, metrics, the access log, and the answer of last resort."""

from __future__ import annotations

import re

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nnz_service import logs
from nnz_service.errors import CLIENT_LEFT, ServiceError
from nnz_service.gateway import Drain
from nnz_service.gateway.faults import fault_of
from nnz_service.gateway.request_ids import request_id
from nnz_service.metrics import Metrics
from nnz_service.repository import is_matrix_id
from nnz_service.web.exchange import exchange_of
from nnz_service.web.fields import field
from nnz_service.web.handlers import error_answer
from nnz_service.web.stages import Stages

_INFER = re.compile(
    r"/v2/models/([A-Za-z0-9._-]{1,128})(?:/versions/([0-9]{1,18}))?/infer"
)
#: All matrices together, in metrics; no model can have this name.
_MATRICES = "m-*"
#: Of a servable; a caller may write anything into a path.
_LONGEST_NAME = 128


class Context:
    """The layer around every request, outside of all but tracing.

    Args:
        app: The rest of the application.
        metrics: What counts requests.
        drain: Whether the process is on its way out.
        access_log: Write a line of level info about each, instead of level debug.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, drain: Drain, access_log: bool = False
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._drain = drain
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the rest of the application with an id and a clock."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stages = Stages(request_id(field(scope, b"x-request-id") or ""))
        answer = _Answer(send, stages, self._drain)
        scope.setdefault("state", {})["stages"] = stages
        self._metrics.inflight.inc()
        with logs.bound(request=stages.request_id):
            try:
                await self._guarded(scope, receive, answer)
            finally:
                self._metrics.inflight.dec()
                self._observe(scope, stages, answer)

    async def _guarded(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            return
        except ServiceError as exc:
            if answer.started:
                _cut(scope)
            else:
                await error_answer(exc)(scope, receive, answer)
        except Exception as exc:
            logs.logger().exception("request failed")
            if answer.started:
                _cut(scope)
                raise
            fault = fault_of(exc, answer.stages.request_id)
            await error_answer(fault)(scope, receive, answer)

    def _observe(self, scope: Scope, stages: Stages, answer: _Answer) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if route != "unmatched" else "any"
        # Matrices come and go, and their ids are their owners' business.
        servable = _MATRICES if is_matrix_id(stages.servable) else stages.servable
        self._metrics.answered(route, method, servable, answer.status, stages.elapsed())
        if answer.status >= 400 and (infer := _INFER.fullmatch(scope["path"])):
            name, version = infer.groups("")
            self._metrics.failed(name, version, answer.status)
        level = "info" if self._access_log else "debug"
        if level not in (logs.chosen() or (level,)):
            return
        named = scope.get("path_params", {}).get("name", "")
        getattr(logs.logger(), level)(
            "request",
            method=scope["method"],
            route=route,
            status=answer.status,
            seconds=round(stages.elapsed(), 6),
            bytes_in=stages.bytes_in,
            bytes_out=answer.size,
            servable=stages.servable or named[:_LONGEST_NAME],
        )


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
            headers = [
                *message.get("headers", ()),
                (b"x-request-id", self.stages.request_id.encode()),
                (b"server-timing", self.stages.header().encode()),
            ]
            if self._drain.begun:  # a connection that stays would be cut while idle
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        else:
            self.size += len(message.get("body", b""))
        await self._send(message)
