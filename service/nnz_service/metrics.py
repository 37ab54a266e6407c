"""Every counter and histogram of the web process, and their text form."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric

# A second series for each counter, that nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

#: Seconds: from a tiny SpMV to the default request timeout.
_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


class Metrics:
    """The metrics of one application; each has a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nnz_http_requests",
            "Answered requests; code 499 means that the client left first.",
            ("route", "method", "servable", "code"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "nnz_http_request_seconds",
            "Time from the arrival of a request to the end of its answer.",
            ("route", "method"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.inflight = Gauge(
            "nnz_http_requests_inflight",
            "Requests being answered now.",
            registry=self.registry,
        )
        self.refused = Counter(
            "nnz_admission_refusals",
            "Requests refused with 429 because the server was full.",
            registry=self.registry,
        )

    def render(self, more: Iterable[Metric] = ()) -> bytes:
        """Write the text format; `more` are families made for this one scrape."""
        extra = CollectorRegistry()
        extra.register(_Ready(list(more)))
        return generate_latest(self.registry) + generate_latest(extra)


class _Ready:
    """A collector of families that exist already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
