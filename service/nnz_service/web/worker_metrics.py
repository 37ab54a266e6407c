"""What the worker and the job store count, as Prometheus metric families."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from nnz_service import usage
from nnz_service.web.triton_metrics import triton_families

_LABELS = ("servable", "version")
_STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


def jobs_family(counts: Mapping[str, int]) -> Metric:
    """Count jobs by their status."""
    family = GaugeMetricFamily("nnz_jobs", "Jobs in the store.", labels=("status",))
    for status, count in counts.items():
        family.add_metric((status,), count)
    return family


def families(
    stats: dict[str, Any] | None, counted: Iterable[Metric] = ()
) -> list[Metric]:
    """Turn the worker's statistics into families, by our names and by Triton's.

    Args:
        stats: What it answers to `stats`; None means that it is down.
        counted: What the front doors counted.
    """
    up = GaugeMetricFamily("nnz_worker_up", "Whether the worker answers.")
    up.add_metric((), 0.0 if stats is None else 1.0)
    workers = [] if stats is None else stats.get("processes", [])
    always = [up, *_processes(workers)]
    if stats is None:
        return always
    rows = stats["model_stats"]
    gpus = [one["gpu"] for one in workers if one.get("gpu")]
    return [
        *always,
        *_scheduler(stats.get("scheduler", {})),
        *_servables(rows),
        _computed(stats.get("usage", {})),
        *triton_families(rows, counted, gpus),
    ]


def _processes(workers: list[dict[str, Any]]) -> Iterable[Metric]:
    resident = GaugeMetricFamily(
        "nnz_process_resident_bytes",
        "Memory of the server's processes.",
        labels=("process",),
    )
    uptime = GaugeMetricFamily(
        "nnz_process_uptime_seconds",
        "Age of the process that answers and of the workers.",
        labels=("process",),
    )
    uptime.add_metric(("web",), usage.uptime_seconds())
    for number, one in enumerate(workers):
        name = "worker" if len(workers) == 1 else f"worker {number}"
        resident.add_metric((name,), one["resident_bytes"])
        uptime.add_metric((name,), one["uptime_seconds"])
    return resident, uptime


def _scheduler(scheduler: dict[str, Any]) -> Iterable[Metric]:
    for name, text in (
        ("queued", "Requests that wait in the worker."),
        ("jobs", "Jobs under way."),
    ):
        if name in scheduler:
            yield GaugeMetricFamily(f"nnz_worker_{name}", text, scheduler[name])


def _computed(usage: Mapping[str, Mapping[str, float]]) -> Metric:
    family = CounterMetricFamily(
        "nnz_key_computing_seconds",
        "Computing for the requests and jobs of a key, as quotas count it.",
        labels=("key", "kind"),
    )
    for key, row in usage.items():
        for kind, seconds in row.items():
            family.add_metric((key, kind), seconds)
    return family


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
