"""What is told of one call: counters, a line in the log, trailing metadata."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from grpc import StatusCode

from nnz_service import logs
from nnz_service.errors import CLIENT_LEFT, ServiceError
from nnz_service.gateway.faults import fault_of
from nnz_service.gateway.timings import Timings
from nnz_service.grpc.status import code_of
from nnz_service.metrics import Metrics

#: How a stream may end of which only the requests count.
_QUIET = frozenset({StatusCode.OK, StatusCode.CANCELLED})


class Account(Timings):
    """One call, or one request of a stream.

    Args:
        metrics: What counts it.
        method: Its published name.
        request_id: Its name in the log.
        lasting: Whether it is a whole stream: how long that lasts is its client's
            choice, and its requests are counted by themselves.
    """

    def __init__(
        self, metrics: Metrics, method: str, request_id: str, *, lasting: bool = False
    ) -> None:
        super().__init__()
        self._metrics = metrics
        self._method = method
        self.request_id = request_id
        self._lasting = lasting
        #: Name and version of what is inferred on; nothing before it was found.
        self.servable: tuple[str, str] | None = None
        #: Rows of the run that the answer came from.
        self.batch: int | None = None

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Count how the block ends.

        Raises:
            ServiceError: What the block raised, or what may be said of it.
        """
        code, status = StatusCode.CANCELLED, CLIENT_LEFT
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

    def trailers(self) -> tuple[tuple[str, str], ...]:
        """Say where the time went, and in what company an inference ran."""
        timing = ("server-timing", self.header())
        if self.batch is None:
            return (timing,)
        return (timing, ("x-batch-size", str(self.batch)))

    def _count(self, code: StatusCode, status: int) -> None:
        seconds = self.elapsed()
        if not self._lasting or code not in _QUIET:
            self._metrics.calls.labels(self._method, code.name).inc()
        if not self._lasting:
            self._metrics.call_seconds.labels(self._method).observe(seconds)
        if status >= 400 and self.servable is not None:
            self._metrics.failed(*self.servable, status)
        logs.logger().debug(
            "request",
            request=self.request_id,
            call=self._method,
            code=code.name,
            seconds=round(seconds, 6),
        )
