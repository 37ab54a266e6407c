"""Metrics under the names that Triton has for them, beside our own.

Its counters have names without `_total`, which prometheus_client would append; so
their type is left open. Source: Triton's user guide, "Metrics".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.metrics_core import Metric

from nnz_service import usage

_REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
#: Triton's name, what it says, and where in a servable's statistics it is.
_COUNTS = (
    ("nv_inference_count", "Inferences performed.", "inference_count"),
    ("nv_inference_exec_count", "Runs of a model on the device.", "execution_count"),
    ("nv_inference_pending_request_count", "Requests that wait.", "pending"),
)
_TIMES = (
    ("nv_inference_request_duration_us", "success"),
    ("nv_inference_queue_duration_us", "queue"),
    ("nv_inference_compute_input_duration_us", "compute_input"),
    ("nv_inference_compute_infer_duration_us", "compute_infer"),
    ("nv_inference_compute_output_duration_us", "compute_output"),
)
_CPU = usage.CpuClock()

Rows = Sequence[Mapping[str, Any]]


def triton_families(
    rows: Rows, counted: Iterable[Metric], gpus: Rows = ()
) -> list[Metric]:
    """Build the families of one scrape.

    Args:
        rows: The worker's statistics, one a version of a servable.
        counted: What the front doors counted; failures are taken from it.
        gpus: Of each GPU `uuid`, `total` and `used`, the latter in bytes.
    """
    success = _family("nv_inference_request_success", "Requests that succeeded.")
    counts = [_family(name, text) for name, text, _ in _COUNTS]
    times = [_family(name, f"Microseconds of {what}.") for name, what in _TIMES]
    for row in rows:
        labels = {"model": row["name"], "version": row["version"]}
        timed = row["inference_stats"]
        _add(success, labels, timed["success"]["count"])
        for family, (_, _, field) in zip(counts, _COUNTS, strict=True):
            _add(family, labels, row.get(field, 0))
        for family, (_, stage) in zip(times, _TIMES, strict=True):
            _add(family, labels, timed[stage]["ns"] // 1000)
    return [success, _failures(rows, counted), *counts, *times, *_machine(gpus)]


def _failures(rows: Rows, counted: Iterable[Metric]) -> Metric:
    """Count failures of what is resident; one that named no version is the newest's."""
    found: dict[tuple[str, str, str], float] = defaultdict(float)
    newest: dict[str, int] = {}
    for row in rows:
        newest[row["name"]] = max(int(row["version"]), newest.get(row["name"], 0))
    for family in counted:
        for sample in family.samples:
            if sample.name == "nnz_servable_failures_total":
                name, version = sample.labels["servable"], sample.labels["version"]
                key = (
                    name,
                    version or str(newest.get(name, "")),
                    sample.labels["reason"],
                )
                found[key] += sample.value
    failure = _family("nv_inference_request_failure", "Requests that failed.")
    for row in rows:
        for reason in _REASONS:
            labels = {"model": row["name"], "version": row["version"], "reason": reason}
            _add(failure, labels, found[row["name"], row["version"], reason])
    return failure


def _machine(gpus: Rows) -> list[Metric]:
    total, used = usage.machine_memory()
    families = []
    for name, text, value in (
        ("nv_cpu_utilization", "Busy part of the CPUs since the last scrape.", None),
        ("nv_cpu_memory_total_bytes", "Memory of the machine.", total),
        ("nv_cpu_memory_used_bytes", "Memory of it that is in use.", used),
    ):
        family = Metric(name, text, "gauge")
        _add(family, {}, _CPU.utilization() if value is None else value)
        families.append(family)
    for field in ("total", "used"):
        family = Metric(
            f"nv_gpu_memory_{field}_bytes", f"GPU memory, {field}.", "gauge"
        )
        for gpu in gpus:
            _add(family, {"gpu_uuid": str(gpu["uuid"])}, gpu[field])
        if gpus:
            families.append(family)
    return families


def _family(name: str, text: str) -> Metric:
    return Metric(name, text, "unknown")


def _add(family: Metric, labels: dict[str, str], value: float) -> None:
    family.add_sample(family.name, labels, value)
