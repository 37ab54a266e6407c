"""One call under way: who asks, until when, and the way to the worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from nnz_service.dataplane import Reply, Reservation, Tensors
from nnz_service.errors import DeadlineError
from nnz_service.gateway import Parts
from nnz_service.gateway.ownership import check_servable, scopes_of
from nnz_service.gateway.servables import target
from nnz_service.grpc.account import Account
from nnz_service.keys import Caller, authorise

T = TypeVar("T")


@dataclass(slots=True)
class Call:
    """What handlers of calls get besides the message.

    Args:
        parts: What a front door stands on.
        caller: Who sent the call.
        account: Where the time goes, and what is counted in the end.
        until: A `time.monotonic()` after which the answer is of no use; None: never.
        held: What admission holds for it.
    """

    parts: Parts
    caller: Caller
    account: Account
    until: float | None
    held: Reservation | None = None

    def remaining(self) -> float | None:
        """Seconds until the deadline, None when there is none."""
        if self.until is None:
            return None
        return max(0.0, self.until - time.monotonic())

    def shorten(self, seconds: float | None) -> None:
        """Bring the deadline forward, if this is sooner; None does nothing."""
        if seconds is not None:
            asked = time.monotonic() + seconds
            self.until = asked if self.until is None else min(asked, self.until)

    async def in_time(self, work: Awaitable[T]) -> T:
        """Wait for work until the deadline.

        Raises:
            DeadlineError: It passed.
        """
        seconds = self.remaining()
        try:
            async with asyncio.timeout(seconds) as clock:
                return await work
        except TimeoutError:
            if not clock.expired():
                raise
            raise DeadlineError(
                f"no answer within {seconds:.3g} s; long work belongs into a job (POST "
                "/v1/jobs over HTTP)"
            ) from None

    async def servable(self, name: str, version: str = "") -> dict[str, Any]:
        """Return the parameters that name a servable which the caller may use.

        Raises:
            ForbiddenError: Their key has not the scope.
            NotFoundError: There is none, or it is not theirs.
        """
        self.account.resource = "/".join(filter(None, (name, version)))
        params = target(name, version or None)
        authorise(self.caller, scopes_of(name), f"that with {name!r}")
        await check_servable(self.parts.repository, self.caller, name)
        return params

    async def ask(
        self, kind: str, params: Mapping[str, Any], tensors: Tensors | None = None
    ) -> Reply:
        """Ask the worker, within the deadline.

        Raises:
            ServiceError: What it answered.
        """
        plane = self.parts.dataplane
        reply = await plane.call(kind, params, tensors, timeout=self.remaining())
        self.account.add(reply.timings)
        return reply
