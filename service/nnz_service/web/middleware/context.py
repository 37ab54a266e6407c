"""Request id, Server-Timing, metrics, and the answer of last resort."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nnz_service import logs
from nnz_service.errors import ServiceError
from nnz_service.gateway.faults import fault_of
from nnz_service.gateway.request_ids import request_id
from nnz_service.metrics import Metrics
from nnz_service.web.handlers import error_answer
from nnz_service.web.stages import Stages

#: Only in metrics and logs: the client left before the answer began.
_CLIENT_LEFT = 499


class Context:
    """The outermost layer around every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the rest of the application with an id and a clock."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stages = Stages()
        given = Headers(scope=scope).get("x-request-id", "")
        answer = _Answer(send, stages, request_id(given))
        scope.setdefault("state", {})["stages"] = stages
        with self._metrics.inflight.track_inprogress():
            try:
                await self._guarded(scope, receive, answer)
            finally:
                self._observe(scope, stages, answer)

    async def _guarded(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            return
        except ServiceError as exc:
            if not answer.started:
                await error_answer(exc)(scope, receive, answer)
        except Exception as exc:
            logs.logger().exception("request failed", request=answer.request_id)
            if answer.started:
                raise
            fault = fault_of(exc, answer.request_id)
            await error_answer(fault)(scope, receive, answer)

    def _observe(self, scope: Scope, stages: Stages, answer: _Answer) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if route != "unmatched" else "any"
        labels = (route, method, stages.servable, str(answer.status))
        self._metrics.requests.labels(*labels).inc()
        self._metrics.seconds.labels(route, method).observe(stages.elapsed())
        logs.logger().debug(
            "request",
            request=answer.request_id,
            method=scope["method"],
            path=scope["path"],
            status=answer.status,
            seconds=round(stages.elapsed(), 6),
        )


class _Answer:
    """`send`, with our headers added to the start of the answer."""

    def __init__(self, send: Send, stages: Stages, request_id: str) -> None:
        self._send = send
        self._stages = stages
        self.request_id = request_id
        self.status = _CLIENT_LEFT
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            headers["Server-Timing"] = self._stages.header()
        await self._send(message)
