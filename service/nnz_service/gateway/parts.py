"""What a front door stands on: limits, the way to the worker, the stores."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from nnz_service.dataplane import Dataplane
from nnz_service.errors import ServiceError
from nnz_service.gateway.controls import Controls
from nnz_service.gateway.limits import Limits
from nnz_service.gateway.turns import Turns
from nnz_service.gateway.watch import Watch
from nnz_service.jobs import JobStore
from nnz_service.metrics import Metrics
from nnz_service.repository import Repository

#: A worker that is slower to wake finds the job by itself.
_WAKE_SECONDS = 5.0


@dataclass(slots=True)
class Drain:
    """Whether the process is on its way out: set by a signal, read by routes."""

    begun: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that handlers of calls stand on."""

    limits: Limits
    dataplane: Dataplane
    repository: Repository
    jobs: JobStore
    metrics: Metrics
    drain: Drain
    turns: Turns
    controls: Controls
    watch: Watch

    async def wake(self) -> None:
        """Tell the worker that jobs changed; without it, it looks a little later."""
        with contextlib.suppress(ServiceError):
            await self.dataplane.call("wake", {}, timeout=_WAKE_SECONDS)
