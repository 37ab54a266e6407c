"""What a route may ask for; the one place that reads ``app.state``."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from nnz_service import gateway
from nnz_service.dataplane import Admission, Reply, Tensors
from nnz_service.gateway.ownership import seen
from nnz_service.keys import ANYBODY, Caller
from nnz_service.web.exchange import exchange_of
from nnz_service.web.stages import stages_of

_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE"})
#: Bytes of an answer from which on it counts among those that all requests share.
_LARGE = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts(gateway.Parts):
    """Everything that routes stand on."""

    admission: Admission

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
            OverloadedError: The answer is large, and there is no room for it now.
            ServiceError: What the worker answered.
        """
        stages = stages_of(request)
        work = self.dataplane.call(kind, params, tensors, timeout=stages.remaining())
        reply = await unless_gone(request, work)
        stages.add(reply.timings)
        if (held := stages.reservation) is not None:
            size = sum(array.nbytes for array in reply.tensors.values())
            if size > _LARGE:  # a few bytes may ask for much, which slow clients keep
                held.add(size)
        return reply


def caller_of(request: Request) -> Caller:
    """Return who the request comes from; the middleware found it out."""
    caller: Caller = request.scope["state"].get("caller", ANYBODY)
    return caller


def job_owner_of(request: Request) -> str | None:
    """Return whose things the caller may see; None for everybody's."""
    caller = caller_of(request)
    return None if caller.admin else caller.id


async def visible_rows(
    request: Request, parts: Parts, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Leave out the rows of matrices that the caller may not know of."""
    names = {row["name"] for row in rows}
    visible = await seen(parts.repository, caller_of(request), names)
    return [row for row in rows if row["name"] in visible]


def name_resource(request: Request, resource: str) -> None:
    """Say what a request made, for the audit log: its path does not."""
    request.state.resource = resource


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, but cancel it when the client leaves.

    Where the connection does not tell, a watch reads what comes; while a body is still
    to be read nobody watches, for the watch would swallow it.

    Raises:
        ClientDisconnect: The client left.
    """
    if (exchange := exchange_of(request.scope)) is not None:
        try:
            with exchange:
                return await work
        finally:
            work.close()  # had the client left before it began, it would never be
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
