"""What is told of one call: counters, lines in the logs, trailing metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from grpc import StatusCode

from nnz_service import logs
from nnz_service.errors import CLIENT_LEFT, OverloadedError, ServiceError
from nnz_service.gateway.faults import fault_of
from nnz_service.gateway.timings import Timings
from nnz_service.grpc.status import code_of
from nnz_service.keys import ANYBODY, AuditLog
from nnz_service.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from nnz_service.grpc.spans import Spans

#: How a stream may end of which only the requests count.
_QUIET = frozenset({StatusCode.OK, StatusCode.CANCELLED})
#: Statuses of those who were refused for want of a key or a scope.
_REFUSALS = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Books:
    """Where it is told.

    Args:
        metrics: What counts calls.
        audit: Where changes and refusals are written; None writes nothing.
        access_log: Write a line of level info about each call, instead of level debug.
        spans: Begins the spans of calls; None makes none.
    """

    metrics: Metrics
    audit: AuditLog | None = None
    access_log: bool = False
    spans: Spans | None = None


class Account(Timings):
    """One call, or one request of a stream.

    Args:
        books: Where it is told.
        method: Its published name.
        request_id: Its name in the logs.
        peer: Who sent it, as gRPC writes addresses.
        lasting: Whether it is a whole stream: how long that lasts is its client's
            choice, and its requests are counted by themselves.
    """

    def __init__(
        self,
        books: Books,
        method: str,
        request_id: str,
        peer: str,
        *,
        lasting: bool = False,
    ) -> None:
        super().__init__()
        self._books = books
        self._method = method
        self.request_id = request_id
        self._peer = peer
        self._lasting = lasting
        #: Who sent it, once that is known.
        self.caller = ANYBODY
        #: What it is about, by name, and whether that is asked to change.
        self.resource = ""
        self.changes = False
        #: Name and version of what is inferred on; nothing before it was found.
        self.servable: tuple[str, str] | None = None
        #: Rows of the run that the answer came from.
        self.batch: int | None = None
        self._span: Span | None = None

    def trace(self, sent: Iterable[tuple[str, str | bytes]]) -> None:
        """Begin its span, in the trace that the metadata of the call name."""
        if (spans := self._books.spans) is not None:
            self._span = spans.begin(self._method, sent, self.request_id)

    def part(self) -> Account:
        """Return the account of one request of this stream."""
        part = Account(self._books, self._method, self.request_id, self._peer)
        part.caller = self.caller
        if self._books.spans is not None and self._span is not None:
            part._span = self._books.spans.part(self._span)
        return part

    @contextmanager
    def admission(self) -> Iterator[None]:
        """Count it when the block finds the server, or what its key may have, full."""
        try:
            yield
        except OverloadedError:
            self._books.metrics.refused.inc()
            raise

    @asynccontextmanager
    async def settled(self) -> AsyncIterator[None]:
        """Count and write down how the block ends, before the caller is told.

        Raises:
            ServiceError: What the block raised, or what may be said of it.
        """
        code, status = StatusCode.CANCELLED, CLIENT_LEFT
        with self._traced():
            try:
                yield
                code, status = StatusCode.OK, 200
            except ServiceError as error:
                code, status = code_of(error), error.status
                raise
            except Exception as error:
                logs.logger().exception("call failed", request=self.request_id)
                fault = fault_of(error, self.request_id)
                code, status = code_of(fault), fault.status
                raise fault from error
            finally:
                self._count(code, status)
                self._end_span(code, status)
                await self._audit(status)

    def trailers(self) -> tuple[tuple[str, str], ...]:
        """Say where the time went, and in what company an inference ran."""
        timing = ("server-timing", self.header())
        if self.batch is None:
            return (timing,)
        return (timing, ("x-batch-size", str(self.batch)))

    def _traced(self) -> AbstractContextManager[None]:
        """Have the lines of the log name the trace."""
        if self._span is None:
            return nullcontext()
        from nnz_service.grpc.spans import trace_of

        return logs.bound(trace_id=trace_of(self._span))

    def _end_span(self, code: StatusCode, status: int) -> None:
        if self._span is not None:
            from nnz_service.grpc.spans import end

            servable = "" if self.servable is None else self.servable[0]
            end(self._span, code, status, servable, self)

    def _count(self, code: StatusCode, status: int) -> None:
        seconds, metrics = self.elapsed(), self._books.metrics
        if not self._lasting or code not in _QUIET:
            metrics.calls.labels(self._method, code.name).inc()
        if not self._lasting:
            metrics.call_seconds.labels(self._method).observe(seconds)
        if status >= 400 and self.servable is not None:
            metrics.failed(*self.servable, status)
        level = "info" if self._books.access_log else "debug"
        if level not in (logs.chosen() or (level,)):
            return
        getattr(logs.logger(), level)(
            "request",
            request=self.request_id,
            call=self._method,
            code=code.name,
            seconds=round(seconds, 6),
        )

    async def _audit(self, status: int) -> None:
        """Write down a change or a refusal, in the fields of the other door."""
        log, refused = self._books.audit, status in _REFUSALS
        if log is None or not (refused or self.changes):
            return
        fields: dict[str, str | int | None] = {
            "key": self.caller.id,
            "action": self._method,
            "resource": self.resource,
            "status": status,
            "request": self.request_id,
            "client": host_of(self._peer),
        }
        await asyncio.to_thread(log.write, refused=refused, **fields)


def host_of(peer: str) -> str | None:
    """Return the address out of `ipv4:127.0.0.1:4711` or `ipv6:%5B::1%5D:4711`."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind.startswith("ip") else None
