"""Bounds on every request: its size, its time, and how many there are at once."""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nnz_service.errors import DeadlineError, ServiceError
from nnz_service.web.bounds import Bounds, Rule, too_large
from nnz_service.web.exchange import Exchange, exchange_of
from nnz_service.web.stages import Stages

#: An upload must keep up this many bytes a second on average, after a grace.
_SLOWEST_UPLOAD = 1024
_GRACE_SECONDS = 30.0


class SlowBodyError(ServiceError):
    """The body stopped arriving."""

    status = 408


class Gate:
    """Admits a request, counts its body, and ends it at its deadline.

    Args:
        app: The rest of the application.
        bounds: What holds for which request.
    """

    def __init__(self, app: ASGIApp, bounds: Bounds) -> None:
        self._app = app
        self._bounds = bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request inside its bounds.

        Raises:
            ServiceError: As `Bounds.admit`.
            DeadlineError: Its time was over.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stages: Stages = scope["state"]["stages"]
        rule = self._bounds.admit(scope, stages)
        silence = self._bounds.limits.body_timeout
        body = _Arrival(receive, rule, silence, stages, exchange_of(scope))
        try:
            async with asyncio.timeout(rule.seconds) as clock:
                await self._app(scope, body, send)
        except TimeoutError:
            if not clock.expired():
                raise
            raise too_late(rule.seconds or 0.0) from None
        finally:
            if stages.reservation is not None:
                stages.reservation.release()


def too_late(seconds: float) -> DeadlineError:
    """Return the error of a request that was not answered in its time."""
    return DeadlineError(
        f"no answer within {seconds:g} s; long work belongs into a job (POST /v1/jobs)"
    )


class _Arrival:
    """`receive`, bounded in bytes and in time until the body is complete."""

    def __init__(
        self,
        receive: Receive,
        rule: Rule,
        silence: float,
        stages: Stages,
        exchange: Exchange | None,
    ) -> None:
        self._exchange = exchange
        self._receive = receive
        self._rule = rule
        self._silence = silence
        self._began = time.monotonic()
        self._told = self._size = 0
        self._stages = stages

    async def __call__(self) -> Message:
        if self._stages.received:
            return await self._receive()
        if self._exchange is not None and self._exchange.received:
            message = await self._receive()  # does not wait
            self._count(message)
            return message
        try:
            async with asyncio.timeout(self._silence):
                message = await self._receive()
        except TimeoutError:
            raise SlowBodyError(
                f"no more of the body came for {self._silence:g} s, "
                f"after {self._size} bytes"
            ) from None
        self._count(message)
        return message

    def _count(self, message: Message) -> None:
        if message["type"] != "http.request":
            return
        self._told += len(message.get("body", b""))
        collected = 0 if self._exchange is None else self._exchange.collected
        self._stages.bytes_in = self._size = self._told + collected
        complete = not message.get("more_body", False)
        if self._size > self._rule.limit:
            raise too_large(f"more than {self._rule.limit} bytes", self._rule.limit)
        late = time.monotonic() - self._began - _GRACE_SECONDS
        if not complete and late * _SLOWEST_UPLOAD > self._size:
            raise SlowBodyError(
                f"the body comes slower than {_SLOWEST_UPLOAD} bytes a second"
            )
        self._stages.received = complete
