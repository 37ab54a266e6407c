"""The worker's side of the pipe: takes calls from any number of web processes."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path
from typing import Any

from nnz_service import logs
from nnz_service.dataplane import wire
from nnz_service.dataplane.channel import Channel, make_socket
from nnz_service.dataplane.inline import Handler, answer
from nnz_service.dataplane.messages import Reply, Tensors
from nnz_service.dataplane.packing import pack_soon
from nnz_service.errors import MalformedError, ServiceError

_BACKLOG = 64
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
        asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Stop listening and end every connection; a second time does nothing."""
        if self._sock.fileno() < 0:
            return
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()
        self._path.unlink(missing_ok=True)
        for peer in list(self._peers):
            peer.channel.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return  # it left before it was let in
        sock.setblocking(False)
        if _user(sock) != os.geteuid():
            logs.logger().warning("connection of another user refused")
            sock.close()
            return
        peer = _Peer(sock, self._handler, self._peers.discard)
        self._peers.add(peer)


class _Peer:
    """One connection: a task for each call under way."""

    def __init__(self, sock: socket.socket, handler: Handler, ended: Any) -> None:
        self._handler = handler
        self._ended = ended
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.channel = Channel(sock, self._on_message, self._on_closed)

    def _on_message(self, datagram: bytes, fd: int | None) -> None:
        fields, tensors = wire.unpack(datagram, fd)
        if (number := fields.get("drop")) is not None:
            if (task := self._tasks.get(number)) is not None:
                task.cancel()
            return
        number = fields.get("id")
        if not isinstance(number, int) or number in self._tasks:
            raise MalformedError(f"a call needs a fresh number, not {number!r}")
        task = asyncio.ensure_future(self._answer(number, fields, tensors))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _answer(
        self, number: int, fields: dict[str, Any], tensors: Tensors
    ) -> None:
        try:
            reply = await self._reply(fields, tensors)
            answered = {"result": reply.result, "timings": reply.timings}
            message = await pack_soon({"id": number} | answered, reply.tensors)
        except ServiceError as error:
            message = wire.pack({"id": number, "error": error.to_dict()}, {})
        except OSError as error:  # no memory or no descriptors left for the answer
            lost = ServiceError(f"the answer cannot be sent: {error}")
            message = wire.pack({"id": number, "error": lost.to_dict()}, {})
        self.channel.send(*message)

    async def _reply(self, fields: dict[str, Any], tensors: Tensors) -> Reply:
        kind, params = fields.get("kind"), fields.get("params")
        if not isinstance(kind, str) or not isinstance(params, dict):
            raise MalformedError("a call needs a kind and parameters")
        seconds = fields.get("timeout")
        if seconds is not None and not isinstance(seconds, int | float):
            raise MalformedError(f"a timeout is a number of seconds, not {seconds!r}")
        return await answer(self._handler, kind, params, tensors, seconds)

    def _on_closed(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._ended(self)


def _user(sock: socket.socket) -> int:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])
