"""Spans of requests: one each, in the trace of the caller, told to a collector."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from service.web.doubler import Doubler, running

from nnz_service import logs, telemetry
from nnz_service.telemetry import TelemetryError, check_endpoint, open_tracing

INFER = "/v2/models/double/infer"
BODY = {
    "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]
}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def http(
    make_app: Callable[..., FastAPI], exporter: InMemorySpanExporter
) -> Iterator[httpx2.Client]:
    """A client of a server whose spans go to `exporter`."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with (
        running(make_app(tracing=provider)) as address,
        httpx2.Client(base_url=f"http://{address}", timeout=30) as client,
    ):
        yield client


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    """Return the one span; it ends a little after its answer."""
    limit = time.monotonic() + 10
    while not (found := exporter.get_finished_spans()) and time.monotonic() < limit:
        time.sleep(0.001)
    (span,) = found
    return span


class TestSpan:
    def test_describes_the_request(
        self, http: httpx2.Client, exporter: InMemorySpanExporter
    ) -> None:
        """Names of the semantic conventions, and where the time went."""
        http.post(INFER, json=BODY, headers={"X-Request-Id": "mine"})

        span = only(exporter)
        assert span.name == "POST /v2/models/{name}/infer"
        assert span.kind is SpanKind.SERVER
        assert span.status.status_code is StatusCode.UNSET
        found = dict(span.attributes or {})
        assert found["http.request.method"] == "POST"
        assert found["http.route"] == "/v2/models/{name}/infer"
        assert found["http.response.status_code"] == 200
        assert found["nnz.servable"] == "double"
        assert found["nnz.request_id"] == "mine"
        assert found["nnz.stage.compute"] == 0.002
        assert found["nnz.stage.parse"] > 0

    def test_goes_on_with_the_callers_trace(
        self, http: httpx2.Client, exporter: InMemorySpanExporter
    ) -> None:
        http.get("/v2", headers=CALLED)

        span = only(exporter)
        assert span.parent is not None
        assert f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == PARENT

    @pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-01"])
    def test_header_that_is_none(
        self, http: httpx2.Client, exporter: InMemorySpanExporter, header: str
    ) -> None:
        """What is no trace of anybody begins a new one."""
        assert http.get("/v2", headers={"traceparent": header}).status_code == 200

        assert only(exporter).parent is None

    def test_faults(
        self, http: httpx2.Client, exporter: InMemorySpanExporter, doubler: Doubler
    ) -> None:
        """A fault of ours is an error of the span, one of the caller is not."""
        http.post(INFER, content=b"{")
        doubler.broken = True
        http.post(INFER, json=BODY)

        theirs, ours = exporter.get_finished_spans()
        assert theirs.status.status_code is StatusCode.UNSET
        assert ours.status.status_code is StatusCode.ERROR
        assert (ours.attributes or {})["http.response.status_code"] == 500

    def test_unmatched(
        self, http: httpx2.Client, exporter: InMemorySpanExporter
    ) -> None:
        """No route, no name that a caller could choose."""
        http.get("/nothing/at/all")

        span = only(exporter)
        assert span.name == "GET"
        assert "http.route" not in (span.attributes or {})

    def test_log_names_the_trace(
        self,
        http: httpx2.Client,
        doubler: Doubler,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Every line of a request has the id of its trace."""
        doubler.broken = True
        http.post(INFER, json=BODY, headers=CALLED)

        rows = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert rows
        assert {row["trace_id"] for row in rows} == {TRACE}


class Collector(BaseHTTPRequestHandler):
    """Takes what is sent to it."""

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, content))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        server.taken = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestExport:
    def test_batches_reach_the_collector(
        self, collector: HTTPServer, make_app: Callable[..., FastAPI]
    ) -> None:
        """Over real HTTP, the last of them when the application ends."""
        provider = open_tracing(f"http://127.0.0.1:{collector.server_port}")
        with running(make_app(tracing=provider)) as address:
            for _ in range(3):
                httpx2.get(f"http://{address}/v2", headers=CALLED)

        taken = collector.taken
        assert [path for path, _ in taken] == ["/v1/traces"]
        assert taken[0][1].count(bytes.fromhex(TRACE)) == 3

    def test_a_collector_that_is_not_there(
        self, make_app: Callable[..., FastAPI]
    ) -> None:
        """Requests are answered all the same, and the end comes soon."""
        logs.configure("error", "web")
        provider = open_tracing("http://127.0.0.1:9")
        with running(make_app(tracing=provider)) as address:
            assert httpx2.get(f"http://{address}/v2").status_code == 200


class TestStart:
    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The start says what to install."""
        monkeypatch.setattr(telemetry, "_NEEDED", ("opentelemetry.absent.sdk",))

        with pytest.raises(TelemetryError, match=r"nnz-server\[otel\]"):
            check_endpoint("http://localhost:4318")

    @pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://x", "http://", "x"])
    def test_no_address(self, endpoint: str) -> None:
        with pytest.raises(TelemetryError, match="NNZ_OTEL_ENDPOINT"):
            check_endpoint(endpoint)

    @pytest.mark.parametrize("endpoint", [None, ""])
    def test_not_asked_for(
        self, endpoint: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(telemetry, "_NEEDED", ("opentelemetry.absent",))

        check_endpoint(endpoint)
