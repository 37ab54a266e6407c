"""One scrape of /metrics: what all processes counted, as far as a caller may know."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from prometheus_client.metrics_core import Metric

from nnz_service.gateway.ownership import seen
from nnz_service.keys import Caller
from nnz_service.metrics import render
from nnz_service.snapshots import add
from nnz_service.web.deps import Parts
from nnz_service.web.usage import known_to
from nnz_service.web.worker_metrics import families, jobs_family


async def scrape(parts: Parts, caller: Caller, stats: dict[str, Any] | None) -> bytes:
    """Write every metric; series of matrices and keys of others are left out.

    They are left out and not added up: a sum would fall when a matrix goes or becomes
    the caller's, and a counter that falls is taken for one that began again.

    Args:
        parts: What the routes stand on.
        caller: Who asks.
        stats: What the worker answers to `stats`; None means that it is down.
    """
    counted, jobs = await asyncio.to_thread(_look, parts)
    rows = [] if stats is None else stats["model_stats"]
    names = {row["name"] for row in rows} | {*_servables(counted)}
    visible = await seen(parts.repository, caller, names)
    counted = [_of(family, visible) for family in counted]
    if stats is not None:
        stats = {
            **stats,
            "model_stats": [r for r in rows if r["name"] in visible],
            "usage": known_to(caller, stats.get("usage", {})),
        }
    found = [*counted, jobs, *families(stats, counted)]
    return await asyncio.to_thread(lambda: render(add(found)))


def _look(parts: Parts) -> tuple[list[Metric], Metric]:
    return parts.metrics.collect(), jobs_family(parts.jobs.counts())


def _servables(counted: Iterable[Metric]) -> Iterable[str]:
    for family in counted:
        for sample in family.samples:
            if "servable" in sample.labels:
                yield sample.labels["servable"]


def _of(family: Metric, visible: set[str]) -> Metric:
    """Return a family without the samples of other servables than these."""
    kept = Metric(family.name, family.documentation, family.type)
    for sample in family.samples:
        if "servable" not in sample.labels or sample.labels["servable"] in visible:
            kept.samples.append(sample)
    return kept
