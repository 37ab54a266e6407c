"""What an application does besides answering, from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from nnz_service.dataplane import Dataplane
from nnz_service.gateway import Controls, Watch
from nnz_service.gateway.counts import keep, save
from nnz_service.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


def lifespan(
    dataplane: Dataplane,
    controls: Controls,
    watch: Watch,
    metrics: Metrics,
    tracing: TracerProvider | None,
    *,
    alone: bool,
) -> Callable[[FastAPI], Any]:
    """Return the life of an application.

    Args:
        dataplane: Started, and closed in the end.
        controls: Followed.
        watch: Closed in the end.
        metrics: Saved again and again.
        tracing: Its last spans are sent in the end.
        alone: No other process changes the controls or reads the metrics.
    """

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        tasks = []
        await asyncio.to_thread(controls.look)
        if not alone:
            tasks = [
                asyncio.create_task(controls.follow(), name="controls"),
                asyncio.create_task(keep(metrics), name="metrics"),
            ]
        await dataplane.start()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await watch.close()
            await dataplane.close()
            await save(metrics)
            if tracing is not None:
                await asyncio.to_thread(tracing.shutdown)

    return live
