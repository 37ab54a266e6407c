"""The worker's counters as Prometheus metric families."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

_LABELS = ("servable", "version")
_STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


def families(stats: dict[str, Any] | None) -> list[Metric]:
    """Turn the worker's statistics into families; None means that it is down."""
    up = GaugeMetricFamily("nnz_worker_up", "Whether the worker answers.")
    up.add_metric((), 0.0 if stats is None else 1.0)
    if stats is None:
        return [up]
    rows = stats["model_stats"]
    return [up, *_scheduler(stats.get("scheduler", {})), *_servables(rows)]


def _scheduler(scheduler: dict[str, Any]) -> Iterable[Metric]:
    for name, text in (
        ("queued", "Requests that wait in the worker."),
        ("jobs", "Jobs under way."),
    ):
        if name in scheduler:
            yield GaugeMetricFamily(f"nnz_worker_{name}", text, scheduler[name])


def _servables(rows: list[dict[str, Any]]) -> Iterable[Metric]:
    counts = {
        "inference_count": CounterMetricFamily(
            "nnz_servable_rows", "Rows computed.", labels=_LABELS
        ),
        "execution_count": CounterMetricFamily(
            "nnz_servable_runs", "Runs on the device.", labels=_LABELS
        ),
    }
    requests = CounterMetricFamily(
        "nnz_servable_requests", "Requests.", labels=(*_LABELS, "outcome")
    )
    seconds = CounterMetricFamily(
        "nnz_servable_seconds", "Time spent in each stage.", labels=(*_LABELS, "stage")
    )
    resident = GaugeMetricFamily(
        "nnz_servable_resident_bytes", "Memory held.", labels=_LABELS
    )
    for row in rows:
        key = (row["name"], row["version"])
        timed = row["inference_stats"]
        for name, family in counts.items():
            family.add_metric(key, row[name])
        for outcome in ("success", "fail"):
            requests.add_metric((*key, outcome), timed[outcome]["count"])
        for stage in _STAGES:
            seconds.add_metric((*key, stage), timed[stage]["ns"] / 1e9)
        held = sum(use["byte_size"] for use in row.get("memory_usage", ()))
        resident.add_metric(key, held)
    return [*counts.values(), requests, seconds, resident]
