"""What a route may ask for; the one place that reads ``app.state``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, cast
from weakref import WeakValueDictionary

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from nnz_service.dataplane import Dataplane, Reply, Tensors
from nnz_service.errors import ServiceError
from nnz_service.jobs import JobStore
from nnz_service.metrics import Metrics
from nnz_service.repository import Repository
from nnz_service.web.limits import Limits
from nnz_service.web.stages import stages_of

_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE"})
#: A worker that is slower to wake finds the job by itself.
_WAKE_SECONDS = 5.0
T = TypeVar("T")


class Turns:
    """One change of a servable at a time: who deletes must not meet who loads."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, name: str) -> asyncio.Lock:
        """The lock of one name; it lives as long as somebody holds or awaits it."""
        return self._locks.setdefault(name, asyncio.Lock())


@dataclass(slots=True)
class Drain:
    """Whether the process is on its way out: set by a signal, read by routes."""

    begun: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that routes stand on."""

    limits: Limits
    dataplane: Dataplane
    repository: Repository
    jobs: JobStore
    metrics: Metrics
    drain: Drain
    turns: Turns = field(default_factory=Turns)

    async def call(
        self,
        request: Request,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors | None = None,
    ) -> Reply:
        """Ask the worker, within the request's deadline, until the client leaves.

        Raises:
            ClientDisconnect: The client left; the worker was told.
            ServiceError: What the worker answered.
        """
        stages = stages_of(request)
        work = self.dataplane.call(kind, params, tensors, timeout=stages.remaining())
        reply = await unless_gone(request, work)
        stages.add(reply.timings)
        return reply

    async def wake(self) -> None:
        """Tell the worker that jobs changed; without it, it looks a little later."""
        with contextlib.suppress(ServiceError):
            await self.dataplane.call("wake", {}, timeout=_WAKE_SECONDS)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, but cancel it when the client leaves.

    While a body is still to be read nobody watches: the watch would swallow it.

    Raises:
        ClientDisconnect: The client left.
    """
    if request.method not in _WITHOUT_BODY and not stages_of(request).received:
        return await work
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _parts(request: Request) -> Parts:
    return cast(Parts, request.app.state.parts)


Served = Annotated[Parts, Depends(_parts)]
