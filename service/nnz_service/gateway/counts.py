"""What a front door counts, told to the other processes of the server."""

from __future__ import annotations

import asyncio

from nnz_service import logs
from nnz_service.errors import ServiceError
from nnz_service.metrics import Metrics

_PAUSE = 1.0  # seconds of metrics that are lost with a process that is killed


async def keep(metrics: Metrics) -> None:
    """Save metrics again and again, until cancelled."""
    while True:
        await asyncio.sleep(_PAUSE)
        await save(metrics)


async def save(metrics: Metrics) -> None:
    """Save metrics; what stands against it is logged."""
    try:
        await asyncio.to_thread(metrics.save)
    except (ServiceError, OSError) as error:
        logs.logger().warning("metrics cannot be saved", error=str(error))
