"""Every counter and histogram of a front door, and their text form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, Metric

from nnz_service import usage
from nnz_service.errors import CLIENT_LEFT
from nnz_service.snapshots import Snapshots

# A second series for each counter, that nobody reads.
disable_created_metrics()

#: Seconds: from a tiny SpMV to the default request timeout.
_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


#: Why a request failed, in Triton's words, by the status of its answer.
_REASONS = {429: "REJECTED", CLIENT_LEFT: "CANCELED", 500: "BACKEND", 504: "REJECTED"}
#: Statuses that say nothing about a servable: it is not there, the caller may not know
#: whether it is, or has not asked for an inference.
_NOT_OF_IT = frozenset({401, 403, 404, 405})
_MAX_FAILING = 4096  # versions that failures are counted by; callers choose them


class Metrics:
    """The metrics of one application; each has a registry of its own.

    Args:
        folder: Where the processes of one server exchange theirs; None for a process
            that has its server for itself.
        process: What this one is to its server.
        restarts: How often the supervisor started processes again, by kind and name.
    """

    def __init__(
        self,
        folder: Path | None = None,
        process: str = "web",
        restarts: Callable[[], Mapping[str, Mapping[str, int]]] = dict,
    ) -> None:
        self._process = process
        self._restarts = restarts
        self.registry = CollectorRegistry()
        self._snapshots = None if folder is None else Snapshots(folder)
        self._failing: set[tuple[str, str]] = set()
        # Finding the series of labels costs more than counting in it.
        self._children: dict[tuple[Any, ...], tuple[Counter, Histogram]] = {}
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, buckets=_BUCKETS, registry=self.registry)
        self.requests = counter(
            "nnz_http_requests",
            "Answered requests; code 499 means that the client left first. Matrices "
            "are one servable, m-*.",
            ("route", "method", "servable", "code"),
        )
        self.seconds = histogram(
            "nnz_http_request_seconds",
            "Time from the arrival of a request to the end of its answer.",
            ("route", "method"),
        )
        self.inflight = gauge(
            "nnz_http_requests_inflight",
            "Requests being answered now.",
        )
        self.calls = counter(
            "nnz_grpc_requests",
            "Answered calls, and requests of streams; a stream that fails is one more.",
            ("method", "code"),
        )
        self.call_seconds = histogram(
            "nnz_grpc_request_seconds",
            "Time from the arrival of a call, or of a request in a stream, to the end "
            "of its answer.",
            ("method",),
        )
        self.refused = counter(
            "nnz_admission_refusals",
            "Requests refused with 429 because the server was full.",
        )
        self.failures = counter(
            "nnz_servable_failures",
            "Inferences that failed, by the version asked for and the reason.",
            ("servable", "version", "reason"),
        )
        self._resident = gauge(
            "nnz_process_resident_bytes",
            "Memory of the server's processes.",
            ("process",),
        )

    def answered(
        self, route: str, method: str, servable: str, status: int, seconds: float
    ) -> None:
        """Count a request that was answered, after so many seconds."""
        labels = (route, method, servable, status)
        if (children := self._children.get(labels)) is None:
            children = self._children[labels] = (
                self.requests.labels(route, method, servable, str(status)),
                self.seconds.labels(route, method),
            )
        children[0].inc()
        children[1].observe(seconds)

    def failed(self, servable: str, version: str, status: int) -> None:
        """Count an inference that failed, by the HTTP status of its answer."""
        if status in _NOT_OF_IT:
            return
        if (servable, version) not in self._failing:
            if len(self._failing) >= _MAX_FAILING:
                return
            self._failing.add((servable, version))
        reason = _REASONS.get(status, "OTHER")
        self.failures.labels(servable, version, reason).inc()

    def save(self) -> None:
        """Tell the other processes of the server how things stand; blocks briefly."""
        if self._snapshots is not None:
            self._snapshots.save(self._own())

    def collect(self) -> list[Metric]:
        """Return what all processes of the server counted; blocks briefly."""
        own = self._own()
        found = own if self._snapshots is None else self._snapshots.exchange(own)
        return [*found, *self._restarted()]

    def restarts(self) -> dict[str, int]:
        """Return how often each process of the server was started again."""
        return {k: v for found in self._restarts().values() for k, v in found.items()}

    def _restarted(self) -> Iterable[Metric]:
        for kind, found in self._restarts().items():
            family = CounterMetricFamily(
                f"nnz_{kind}_restarts",
                "How often a process was started again after it had ended.",
                labels=("process",),
            )
            for name, count in found.items():
                family.add_metric((name,), count)
            yield family

    def _own(self) -> list[Metric]:
        self._resident.labels(self._process).set(usage.resident_bytes())
        return list(self.registry.collect())


def render(families: Iterable[Metric]) -> bytes:
    """Write families in the text format."""
    registry = CollectorRegistry()
    registry.register(_Ready(list(families)))
    return generate_latest(registry)


class _Ready:
    """A collector of families that exist already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
