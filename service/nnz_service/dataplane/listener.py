"""The worker's side of the pipe: takes calls from any number of web processes."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnz_service import logs
from nnz_service.dataplane import wire
from nnz_service.dataplane.channel import Channel, make_socket
from nnz_service.dataplane.inline import Handler, answer, fault
from nnz_service.dataplane.messages import Pending, Reply, Tensors
from nnz_service.dataplane.packing import is_big, pack_soon
from nnz_service.errors import MalformedError, ServiceError

_BACKLOG = 64

#: Errors under which a connection goes on waiting to be let in, and seconds until then.
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 0.5

_CREDENTIALS = struct.Struct("3i")  # process, user, group


class Listener:
    """Accepts connections at a path and answers their calls with a handler.

    Args:
        path: At most 107 bytes, in a folder that only this user can enter.
        handler: What answers.
    """

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._sock = make_socket()
        self._peers: set[_Peer] = set()

    def start(self) -> None:
        """Listen; an old socket at the path is replaced."""
        self._path.unlink(missing_ok=True)
        self._sock.bind(str(self._path))
        self._sock.listen(_BACKLOG)
        self._watch()

    def close(self) -> None:
        """Stop listening and end every connection; a second time does nothing."""
        if self._sock.fileno() < 0:
            return
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()
        self._path.unlink(missing_ok=True)
        for peer in list(self._peers):
            peer.channel.close()

    def _watch(self) -> None:
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError as error:
            if error.errno in _SCARCE:  # the loop would call again at once, for ever
                logs.logger().warning("connection waits to be let in", error=str(error))
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._sock)
                loop.call_later(_PAUSE, self._watch)
            return  # otherwise it left before it was let in
        sock.setblocking(False)
        if _user(sock) != os.geteuid():
            logs.logger().warning("connection of another user refused")
            sock.close()
            return
        peer = _Peer(sock, self._handler, self._peers.discard)
        self._peers.add(peer)


class _Peer:
    """One connection: a task, or an answer of another thread, for each call."""

    def __init__(self, sock: socket.socket, handler: Handler, ended: Any) -> None:
        self._handler = handler
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, asyncio.Task[None] | Future[Any]] = {}
        self.channel = Channel(sock, self._on_message, self._on_closed)

    def _on_message(self, datagram: bytes, fd: int | None) -> None:
        try:
            fields, tensors = wire.unpack(datagram, fd)
        except wire.TensorsLostError as lost:
            self._refuse(lost.number, lost.for_caller())
            return
        if (number := fields.get("drop")) is not None:
            if (dropped := self._calls.get(number)) is not None:
                dropped.cancel()
            return
        number = fields.get("id")
        if not isinstance(number, int) or number in self._calls:
            raise MalformedError(f"a call needs a fresh number, not {number!r}")
        try:
            call = _Call.of(fields)
            pending = self._begun(call, tensors)
        except ServiceError as error:
            self._refuse(number, error)
            return
        if pending is None:
            task = asyncio.ensure_future(self._answer(number, call, tensors))
            self._calls[number] = task
            task.add_done_callback(lambda _: self._calls.pop(number, None))
        else:
            self._calls[number] = pending.future
            done = functools.partial(self._on_done, number, call.kind, pending.reply)
            pending.future.add_done_callback(done)

    def _begun(self, call: _Call, tensors: Tensors) -> Pending | None:
        """Begin a call on this very thread, if it needs no other."""
        seconds = call.seconds
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            return self._handler.begin(call.kind, call.params, tensors, deadline)
        except ServiceError:
            raise
        except Exception as error:
            raise fault(call.kind, error) from error

    def _on_done(
        self,
        number: int,
        kind: str,
        reply_of: Callable[[Any], Reply],
        future: Future[Any],
    ) -> None:
        """Answer from the thread that computed: the event loop would take as long."""
        self._calls.pop(number, None)
        if future.cancelled():
            return  # nobody waits for it
        try:
            reply = reply_of(future.result())
            if not is_big(reply.tensors):
                self.channel.send(*wire.pack(_answered(number, reply), reply.tensors))
                return
        except ServiceError as error:
            self._refuse(number, error)
        except Exception as error:
            self._refuse(number, fault(kind, error))
        else:
            later = self._send(number, reply)
            asyncio.run_coroutine_threadsafe(later, self._loop)

    async def _answer(self, number: int, call: _Call, tensors: Tensors) -> None:
        try:
            handler, seconds = self._handler, call.seconds
            reply = await answer(handler, call.kind, call.params, tensors, seconds)
        except ServiceError as error:
            self._refuse(number, error)
        else:
            await self._send(number, reply)

    async def _send(self, number: int, reply: Reply) -> None:
        try:
            message = await pack_soon(_answered(number, reply), reply.tensors)
        except ServiceError as error:
            self._refuse(number, error)
        except OSError as error:  # no memory or no descriptors left for the answer
            self._refuse(number, ServiceError(f"the answer cannot be sent: {error}"))
        except Exception as error:
            self._refuse(number, fault("an answer", error))
        else:
            self.channel.send(*message)

    def _refuse(self, number: int, error: ServiceError) -> None:
        message = {"id": number, "error": error.to_dict()}
        self.channel.send(*wire.pack(message, {}))

    def _on_closed(self) -> None:
        for call in list(self._calls.values()):
            call.cancel()
        self._ended(self)


@dataclass(frozen=True, slots=True)
class _Call:
    """What a message asks for; `seconds` are left until nobody wants the answer."""

    kind: str
    params: dict[str, Any]
    seconds: float | None

    @classmethod
    def of(cls, fields: dict[str, Any]) -> _Call:
        """Take it out of a message.

        Raises:
            MalformedError: It is not there.
        """
        kind, params = fields.get("kind"), fields.get("params")
        if not isinstance(kind, str) or not isinstance(params, dict):
            raise MalformedError("a call needs a kind and parameters")
        seconds = fields.get("timeout")
        if seconds is not None and not isinstance(seconds, int | float):
            raise MalformedError(f"a timeout is a number of seconds, not {seconds!r}")
        return cls(kind, params, seconds)


def _answered(number: int, reply: Reply) -> dict[str, Any]:
    return {"id": number, "result": reply.result, "timings": reply.timings}


def _user(sock: socket.socket) -> int:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])
