"""The gRPC server: its address, its bounds on connections, its end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import grpc

from nnz_service.dataplane import Admission
from nnz_service.errors import ServiceError
from nnz_service.gateway import Parts
from nnz_service.grpc.account import Books
from nnz_service.grpc.door import Door
from nnz_service.keys import AuditLog, Keyring

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from nnz_service.grpc.spans import Spans

#: Calls under way, health and metadata included, for each one that may compute.
_CALLS_PER_SLOT = 8
#: Seconds in which answers that are ready still leave.
_LAST_WORDS = 1.0


class Server:
    """Serves the protocol on one address, on the running event loop.

    Args:
        parts: What the calls stand on; its dataplane is started and closed by others.
        admission: Where slots and bytes are reserved.
        keyring: Knows the keys; None lets everybody in.
        credentials: Certificate and key of TLS; None speaks in the clear.
        audit: Where changes and refusals are written; None writes nothing.
        access_log: Log a line of level info for every call.
        tracing: Where spans of calls go; others end it.
    """

    def __init__(
        self,
        parts: Parts,
        admission: Admission,
        keyring: Keyring | None = None,
        credentials: grpc.ServerCredentials | None = None,
        *,
        audit: AuditLog | None = None,
        access_log: bool = False,
        tracing: TracerProvider | None = None,
    ) -> None:
        self._parts = parts
        self._credentials = credentials
        books = Books(parts.metrics, audit, access_log, _spans(tracing))
        self._door = Door(parts, admission, keyring or Keyring(), books)
        self._server = grpc.aio.server(
            handlers=[self._door],
            options=[
                ("grpc.so_reuseport", 0),  # two servers must not share a port unseen
                ("grpc.max_receive_message_length", parts.limits.max_body),
                ("grpc.max_send_message_length", -1),
            ],
            maximum_concurrent_rpcs=_CALLS_PER_SLOT * parts.limits.max_inflight,
        )

    async def start(self, address: str) -> int:
        """Listen on `host:port`; port 0 takes a free one.

        Returns:
            The port.

        Raises:
            ServiceError: It cannot be had.
        """
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise ServiceError(f"cannot listen on {address}: {error}") from error
        await self._server.start()
        return port

    async def stop(self, grace: float) -> None:
        """Take no more work, answer what was taken, close.

        Until then it answers that it is not ready, so that balancers look elsewhere.

        Args:
            grace: Seconds after which calls under way are broken off.
        """
        self._parts.drain.begun = True
        self._door.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._door.idle()
        await self._server.stop(_LAST_WORDS)


def _spans(tracing: TracerProvider | None) -> Spans | None:
    if tracing is None:
        return None
    from nnz_service.grpc.spans import Spans  # OpenTelemetry may not be installed

    return Spans(tracing)
