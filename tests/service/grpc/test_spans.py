"""Spans of calls: one each, in the trace of the caller."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from service.grpc.conftest import Serve
from service.grpc.serving import Line, line, refusal, request_of
from service.web.doubler import Doubler

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLED = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
INFER = request_of(x=np.ones((1, 3), np.float32))


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def call(serve: Serve, exporter: InMemorySpanExporter) -> Iterator[Line]:
    """Calls a server whose spans go to `exporter`."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with serve(tracing=provider) as server, line(server.address) as found:
        yield found


def ended(exporter: InMemorySpanExporter, count: int = 1) -> list[ReadableSpan]:
    """Return the spans; they end a little after their answers."""
    limit = time.monotonic() + 10
    while len(found := exporter.get_finished_spans()) < count:
        assert time.monotonic() < limit
        time.sleep(0.001)
    assert len(found) == count
    return list(found)


def test_it_describes_the_call(call: Line, exporter: InMemorySpanExporter) -> None:
    """Names of the semantic conventions, and where the time went."""
    call("ModelInfer", INFER, metadata=(("x-request-id", "mine"),))

    (span,) = ended(exporter)
    assert span.name == "inference.GRPCInferenceService/ModelInfer"
    assert (span.kind, span.parent) == (SpanKind.SERVER, None)
    assert span.status.status_code is StatusCode.UNSET
    found = dict(span.attributes or {})
    assert found["rpc.system"] == "grpc"
    assert found["rpc.service"] == "inference.GRPCInferenceService"
    assert found["rpc.method"] == "ModelInfer"
    assert found["rpc.grpc.status_code"] == 0
    assert found["nnz.servable"] == "double"
    assert found["nnz.request_id"] == "mine"
    assert found["nnz.stage.compute"] == 0.002


def test_it_goes_on_with_the_callers_trace(
    call: Line, exporter: InMemorySpanExporter
) -> None:
    call("ServerReady", b"", metadata=CALLED)
    call("ServerReady", b"", metadata=(("traceparent", "nonsense"),))

    theirs, new = ended(exporter, 2)
    assert theirs.parent is not None
    assert f"{theirs.context.trace_id:032x}" == TRACE
    assert f"{theirs.parent.span_id:016x}" == PARENT
    assert new.parent is None


def test_a_stream_and_each_of_its_requests(
    call: Line, exporter: InMemorySpanExporter
) -> None:
    message = INFER.SerializeToString()

    assert len(list(call.stream([message, message], metadata=CALLED))) == 2

    *requests, stream = ended(exporter, 3)
    assert stream.name == "inference.GRPCInferenceService/ModelStreamInfer"
    assert f"{stream.context.trace_id:032x}" == TRACE
    for one in requests:
        assert one.parent is not None
        assert one.parent.span_id == stream.context.span_id
        assert (one.attributes or {})["nnz.servable"] == "double"


def test_a_fault_of_ours_is_an_error_and_one_of_the_caller_is_not(
    call: Line,
    exporter: InMemorySpanExporter,
    doubler: Doubler,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is logged of it names the trace."""
    refusal(lambda: call("ModelInfer", b"\xff"))
    doubler.broken = True
    refusal(lambda: call("ModelInfer", INFER, metadata=CALLED))

    theirs, ours = ended(exporter, 2)
    assert theirs.status.status_code is StatusCode.UNSET
    assert (theirs.attributes or {})["rpc.grpc.status_code"] == 3
    assert ours.status.status_code is StatusCode.ERROR
    rows = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    assert rows
    assert {row["trace_id"] for row in rows} == {TRACE}
