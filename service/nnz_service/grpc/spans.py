"""One OpenTelemetry span a call, and a request of a stream, as `web` has them.

Names of attributes are those of the semantic conventions for RPC spans; the caller's
trace comes in the metadata `traceparent`. Only in use when an endpoint is set.
"""

from __future__ import annotations

from collections.abc import Iterable

from grpc import StatusCode
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, set_span_in_context
from opentelemetry.trace import StatusCode as Outcome
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from nnz_service.gateway.timings import Timings
from nnz_service.grpc.protocol import messages as m

_SERVICE = m.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_FAULT = 500


class Spans:
    """Begins spans.

    Args:
        provider: Where they go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("nnz")
        self._propagator = TraceContextTextMapPropagator()

    def begin(
        self, method: str, sent: Iterable[tuple[str, str | bytes]], request_id: str
    ) -> Span:
        """Begin the span of a call, in the trace that its metadata name."""
        carrier = {name: text for name, text in sent if isinstance(text, str)}
        return self._tracer.start_span(
            f"{_SERVICE}/{method}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": _SERVICE,
                "rpc.method": method,
                "nnz.request_id": request_id,
            },
        )

    def part(self, stream: Span) -> Span:
        """Begin the span of one request of a stream, inside of that of the stream."""
        return self._tracer.start_span("request", context=set_span_in_context(stream))


def trace_of(span: Span) -> str:
    """Return the id of its trace, as headers have it."""
    return f"{span.get_span_context().trace_id:032x}"


def end(
    span: Span, code: StatusCode, status: int, servable: str, timings: Timings
) -> None:
    """Say what is known only in the end, and end it.

    Args:
        span: It.
        code: How the call ended.
        status: The same over HTTP; a fault of ours is an error of the span.
        servable: What it was about; empty when it was about none.
        timings: Where the time went.
    """
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    span.set_attribute("nnz.servable", servable)
    for name, seconds in timings.seconds().items():
        span.set_attribute(f"nnz.stage.{name}", seconds)
    if status >= _FAULT:
        span.set_status(Status(Outcome.ERROR))
    span.end()
