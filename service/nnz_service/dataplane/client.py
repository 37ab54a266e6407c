"""The web side of the pipe: calls a worker, and finds it again when it is replaced."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnz_service import logs
from nnz_service.dataplane import wire
from nnz_service.dataplane.channel import Channel, make_socket
from nnz_service.dataplane.messages import Reply, Tensors
from nnz_service.dataplane.packing import pack_soon
from nnz_service.errors import (
    DeadlineError,
    ServiceError,
    WorkerLostError,
)

_BACKOFF = (0.02, 0.5)  # seconds between attempts to connect: first, longest
_PING_STARTING, _PING_READY = 0.1, 2.0  # seconds between looks at the worker
_PING_PATIENCE = 10.0  # seconds without an answer after which it is not ready


class SocketDataplane:
    """A `Dataplane` over the socket of a worker process.

    Args:
        path: Where the worker listens, or will.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._channel: Channel | None = None
        self._gone = asyncio.Event()
        self._pending: dict[int, asyncio.Future[Reply]] = {}
        self._ids = itertools.count(1)
        self._keeper: asyncio.Task[None] | None = None
        self._ready = False
        self._detail = "the worker is starting"

    @property
    def ready(self) -> bool:
        """See `Dataplane`."""
        return self._ready and self._channel is not None

    @property
    def detail(self) -> str:
        """See `Dataplane`."""
        return self._detail

    async def start(self) -> None:
        """See `Dataplane`."""
        self._keeper = asyncio.create_task(self._keep(), name="dataplane")

    async def close(self) -> None:
        """See `Dataplane`."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._channel is not None:
            self._channel.close()

    async def call(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the worker must know it too
    ) -> Reply:
        """See `Dataplane`."""
        number, loop = next(self._ids), asyncio.get_running_loop()
        fields = {"id": number, "kind": kind, "params": params, "timeout": timeout}
        answer: asyncio.Future[Reply] = loop.create_future()
        timer = None
        if timeout is not None:  # a tenth of what `asyncio.timeout` costs
            timer = loop.call_later(timeout, _end, answer, kind, timeout)
        try:
            datagram, fd = await pack_soon(fields, tensors or {})
            if answer.done():  # the time was over before it was written down
                wire.discard(fd)
                return await answer
            channel = self._connected(fd)
            self._pending[number] = answer
            channel.send(datagram, fd)
            return await answer
        finally:
            if timer is not None:
                timer.cancel()
            if self._pending.pop(number, None) is not None:
                self._drop(number)  # nobody waits for the answer any more
            elif answer.done() and not answer.cancelled():
                answer.exception()  # cancelled in the instant of the answer: seen

    # Connection

    async def _keep(self) -> None:
        """Connect, watch, connect again; until cancelled, whatever goes wrong."""
        delay = _BACKOFF[0]
        while True:
            try:
                if self._connect():
                    delay = _BACKOFF[0]
                    await self._watch()
            except Exception:
                logs.logger().exception("the connection to the worker failed")
            await asyncio.sleep(delay)
            delay = min(2 * delay, _BACKOFF[1])

    def _connect(self) -> bool:
        try:
            sock = make_socket()
        except OSError as error:  # no descriptor is free
            self._detail = f"no connection to the worker: {error.strerror}"
            return False
        try:
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            return False
        self._gone.clear()
        self._channel = Channel(sock, self._on_message, self._on_closed)
        return True

    async def _watch(self) -> None:
        """Ask how the worker is until its connection ends."""
        while not self._gone.is_set():
            try:
                reply = await self.call("ping", {}, timeout=_PING_PATIENCE)
            except ServiceError as error:
                self._ready, self._detail = False, f"the worker: {error}"
            else:
                self._ready = bool(reply.result.get("ready"))
                self._detail = str(reply.result.get("detail"))
            pause = _PING_READY if self._ready else _PING_STARTING
            try:
                async with asyncio.timeout(pause):
                    await self._gone.wait()
            except TimeoutError:
                continue

    def _on_closed(self) -> None:
        self._channel, self._ready = None, False
        self._detail = "the worker ended and is being replaced"
        self._gone.set()
        pending, self._pending = self._pending, {}
        for answer in pending.values():
            if not answer.done():
                answer.set_exception(
                    WorkerLostError("the worker ended while it held this request")
                )

    def _on_message(self, datagram: bytes, fd: int | None) -> None:
        try:
            fields, tensors = wire.unpack(datagram, fd)
        except wire.TensorsLostError as lost:
            error = lost.for_caller().to_dict()
            fields, tensors = {"id": lost.number, "error": error}, {}
        answer = self._pending.pop(fields.get("id", 0), None)
        if answer is None or answer.done():
            return  # nobody waits for it any more
        if (told := fields.get("error")) is not None:
            failure = ServiceError.from_dict(told)
            if isinstance(failure, WorkerLostError):  # its device failed: it will end
                self._ready, self._detail = False, str(failure)
            answer.set_exception(failure)
            return
        answer.set_result(Reply(fields["result"], tensors, fields["timings"]))

    def _connected(self, fd: int | None) -> Channel:
        if self._channel is None:
            wire.discard(fd)
            raise WorkerLostError(f"the worker cannot be reached: {self._detail}")
        return self._channel

    def _drop(self, number: int) -> None:
        if self._channel is not None:
            self._channel.send(wire.pack({"drop": number}, {})[0], None)


def _end(answer: asyncio.Future[Reply], kind: str, seconds: float) -> None:
    if not answer.done():
        answer.set_exception(DeadlineError(f"{kind} took longer than {seconds:g} s"))
