"""The dataplane without a pipe: the worker's handler in this very process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

from nnz_service import logs
from nnz_service.dataplane.messages import Pending, Reply, Tensors
from nnz_service.errors import DeadlineError, ServiceError


class Handler(Protocol):
    """What answers calls: `worker.Host`, behind a pipe or called directly."""

    @property
    def ready(self) -> bool:
        """Whether it has finished starting."""
        ...

    @property
    def detail(self) -> str:
        """One line on what it is doing."""
        ...

    def start(self) -> None:
        """Begin; returns at once."""
        ...

    def close(self) -> None:
        """End; blocks until its threads are gone."""
        ...

    def begin(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors,
        deadline: float | None,
    ) -> Pending | None:
        """Begin a call that waits for nothing but the device; None asks `handle`.

        Raises:
            ServiceError: Why it cannot be done, as `handle` would.
        """
        ...

    async def handle(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors,
        deadline: float | None,
    ) -> Reply:
        """Answer one call; `deadline` is a `time.monotonic()`."""
        ...


async def answer(
    handler: Handler,
    kind: str,
    params: Mapping[str, Any],
    tensors: Tensors,
    seconds: float | None,
) -> Reply:
    """Call a handler under a deadline; every failure becomes a ServiceError."""
    deadline = None if seconds is None else time.monotonic() + seconds
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await handler.handle(kind, params, tensors, deadline)
    except ServiceError:
        raise
    except Exception as error:
        # In time it is an OSError of that class, and the handler's own. A clock would
        # not tell them apart: timers fire some of its ticks early.
        if limit.expired() and isinstance(error, TimeoutError):
            raise DeadlineError(f"{kind} took longer than {seconds:g} s") from error
        raise fault(kind, error) from error


def fault(kind: str, error: Exception) -> ServiceError:
    """Return what a caller is told; a fault of ours is logged, and ends no process."""
    if isinstance(error, ServiceError):
        return error
    logs.logger().error("a call failed", kind=kind, exc_info=error)
    return ServiceError(f"{kind} failed: {type(error).__name__}")


class InlineDataplane:
    """A `Dataplane` over a handler in this process."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    @property
    def ready(self) -> bool:
        """See `Dataplane`."""
        return self._handler.ready

    @property
    def detail(self) -> str:
        """See `Dataplane`."""
        return self._handler.detail

    async def start(self) -> None:
        """See `Dataplane`."""
        self._handler.start()

    async def close(self) -> None:
        """See `Dataplane`."""
        await asyncio.to_thread(self._handler.close)

    async def call(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the worker must know it too
    ) -> Reply:
        """See `Dataplane`."""
        return await answer(self._handler, kind, params, tensors or {}, timeout)
