"""One OpenTelemetry span a request, in the trace that its caller began.

Names of attributes are those of the semantic conventions for HTTP spans; the caller's
trace comes in the W3C header `traceparent`. Only in use when an endpoint is set.
"""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nnz_service import logs
from nnz_service.web.stages import Stages

_FAULT = 500


class Tracing:
    """The outermost layer: spans begin before and end after everything else.

    Args:
        app: The rest of the application.
        provider: Where spans go.
    """

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self._app = app
        self._tracer = provider.get_tracer("nnz")
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request in a span, whose trace every line of its log names."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        span = self._tracer.start_span(
            scope["method"],
            context=self._propagator.extract(dict(Headers(scope=scope))),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": scope["method"],
                "url.path": scope["path"],
                "url.scheme": scope["scheme"],
            },
        )

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= _FAULT:
                    span.set_status(Status(StatusCode.ERROR))
            await send(message)

        trace = f"{span.get_span_context().trace_id:032x}"
        try:
            with logs.bound(trace_id=trace):
                await self._app(scope, receive, watched)
        finally:
            _describe(span, scope)
            span.end()


def _describe(span: Span, scope: Scope) -> None:
    """Say what is known only in the end."""
    if (route := getattr(scope.get("route"), "path", None)) is not None:
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    stages = scope.get("state", {}).get("stages")
    if isinstance(stages, Stages):
        span.set_attribute("nnz.request_id", stages.request_id)
        span.set_attribute("nnz.servable", stages.servable)
        span.set_attribute("http.request.body.size", stages.bytes_in)
        for name, seconds in stages.seconds().items():
            span.set_attribute(f"nnz.stage.{name}", seconds)
