"""Bounds on every request: its size, its time, and how many there are at once."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nnz_service.dataplane.admission import Admission, Reservation
from nnz_service.errors import (
    DeadlineError,
    MalformedError,
    OverloadedError,
    ServiceError,
    TooLargeError,
)
from nnz_service.gateway.limits import Limits
from nnz_service.keys import ANYBODY, Caller
from nnz_service.metrics import Metrics
from nnz_service.web.exchange import Exchange, exchange_of
from nnz_service.web.fields import field
from nnz_service.web.stages import Stages

#: An upload must keep up this many bytes a second on average, after a grace.
_SLOWEST_UPLOAD = 1024
_GRACE_SECONDS = 30.0
#: What an upload holds in memory while it goes to disk.
_UPLOAD_BUFFER = 4 << 20
#: The longest that `GET /v1/jobs/{id}?wait=` may hold its answer back.
_LONGEST_WAIT = 60.0
#: The longest that one stream of events lives; its client comes back.
_LONGEST_STREAM = 3600.0

_TENSORS = re.compile(r"/v2/models/.+/infer|/v1/ops/.+|/v1/jobs")
_UPLOADS = re.compile(r"/v1/models/[^/]+|/v1/matrices")
_RESULTS = re.compile(r"/v1/jobs/[^/]+/result")
_EVENTS = re.compile(r"/v1/jobs/[^/]+/events")
_LOADS = re.compile(r".+/(un)?load")


class SlowBodyError(ServiceError):
    """The body stopped arriving."""

    status = 408


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for one request.

    Args:
        limit: Bytes of its body.
        seconds: Until its answer; None where the work has bounds of its own.
        reserve: Bytes to reserve when the length is unknown; None needs no slot. With 0
            the route asks for its bytes when it knows them.
    """

    limit: int
    seconds: float | None
    reserve: int | None = None


def rule_of(method: str, path: str, limits: Limits) -> Rule:
    """Choose the rule for a request, before anything of it is read."""
    if method in ("PUT", "POST") and _UPLOADS.fullmatch(path):
        return Rule(limits.max_upload, None, _UPLOAD_BUFFER)
    if method == "POST" and _TENSORS.fullmatch(path):
        return Rule(limits.max_body, limits.request_timeout, limits.max_body)
    if method == "POST" and _LOADS.fullmatch(path):
        return Rule(limits.max_json, None)
    if _EVENTS.fullmatch(path):
        return Rule(limits.max_json, _LONGEST_STREAM)
    if path.startswith("/v1/jobs/"):
        large = method == "GET" and _RESULTS.fullmatch(path)
        seconds = limits.request_timeout + _LONGEST_WAIT
        return Rule(limits.max_json, seconds, 0 if large else None)
    return Rule(limits.max_json, limits.request_timeout)


class Gate:
    """Admits a request, counts its body, and ends it at its deadline."""

    def __init__(
        self, app: ASGIApp, limits: Limits, admission: Admission, metrics: Metrics
    ) -> None:
        self._app = app
        self._limits = limits
        self._admission = admission
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request inside its bounds.

        Raises:
            TooLargeError: Its Content-Length passes the limit.
            OverloadedError: There is no room for it now.
            DeadlineError: Its time was over.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rule = rule_of(scope["method"], scope["path"], self._limits)
        length = _content_length(scope)
        if length is not None and length > rule.limit:
            raise _too_large(f"{length} bytes", rule.limit)
        stages: Stages = scope["state"]["stages"]
        stages.deadline = rule.seconds
        silence, exchange = self._limits.body_timeout, exchange_of(scope)
        body = _Arrival(receive, rule, silence, stages, exchange)
        stages.reservation = self._admit(scope, rule, length)
        try:
            async with asyncio.timeout(rule.seconds) as clock:
                await self._app(scope, body, send)
        except TimeoutError:
            if not clock.expired():
                raise
            raise DeadlineError(
                f"no answer within {rule.seconds:g} s; long work belongs into a job "
                "(POST /v1/jobs)"
            ) from None
        finally:
            if stages.reservation is not None:
                stages.reservation.release()

    def _admit(
        self, scope: Scope, rule: Rule, length: int | None
    ) -> Reservation | None:
        if rule.reserve is None:
            return None
        # A compressed body may unfold to the limit, whatever its length.
        encoded = field(scope, b"content-encoding") is not None
        known = rule.reserve if length is None or encoded else length
        caller: Caller = scope["state"].get("caller", ANYBODY)
        try:
            return self._admission.reserve(min(known, rule.reserve), caller)
        except OverloadedError:
            self._metrics.refused.inc()
            raise


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
            raise _too_large(f"more than {self._rule.limit} bytes", self._rule.limit)
        late = time.monotonic() - self._began - _GRACE_SECONDS
        if not complete and late * _SLOWEST_UPLOAD > self._size:
            raise SlowBodyError(
                f"the body comes slower than {_SLOWEST_UPLOAD} bytes a second"
            )
        self._stages.received = complete


def _content_length(scope: Scope) -> int | None:
    text = field(scope, b"content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise MalformedError(f"Content-Length is {text!r}; it must be a number")
    return int(text)


def _too_large(found: str, limit: int) -> TooLargeError:
    return TooLargeError(
        f"the body has {found}, the limit here is {limit}; send it in parts, or raise "
        "the limits of the server (NNZ_MAX_BODY, NNZ_MAX_JSON, NNZ_MAX_UPLOAD)"
    )
