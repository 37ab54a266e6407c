"""One end of a connected socket that keeps datagrams whole and passes descriptors."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import threading
from collections import deque
from collections.abc import Callable

from nnz_service import logs
from nnz_service.dataplane.wire import MAX_DATAGRAM, discard

#: As numbers: Python's own are an enumeration, whose `&` costs more than the call.
_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_TRUNCATED = int(socket.MSG_TRUNC)
_BURST = 64  # messages read before other work gets its turn
_SPACE = socket.CMSG_SPACE(array.array("i").itemsize)


def make_socket() -> socket.socket:
    """A socket of the kind that both ends use: local, ordered, datagrams kept whole."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    return sock


class Channel:
    """Receives messages on the running event loop, sends them from any thread.

    Args:
        sock: Connected and non-blocking; the channel closes it.
        receive: Gets each datagram and its descriptor, which it does not close; None
            also where this process has no room for it.
        closed: Called once, when the channel has ended for whatever reason.
    """

    def __init__(
        self,
        sock: socket.socket,
        receive: Callable[[bytes, int | None], None],
        closed: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._receive = receive
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._backlog: deque[tuple[bytes, int | None]] = deque()
        self._sending = threading.Lock()
        self.open = True
        self._loop.add_reader(sock, self._on_readable)

    def send(self, datagram: bytes, fd: int | None) -> None:
        """Send now or as soon as the other side reads; closes `fd` when it is gone."""
        with self._sending:
            if not self.open:
                discard(fd)
                return
            if not self._backlog and self._sent(datagram, fd):
                return
            self._backlog.append((datagram, fd))
            if len(self._backlog) == 1:
                self._loop.call_soon_threadsafe(self._flush)

    def close(self) -> None:
        """End it, on the event loop; what waits to be sent is dropped."""
        with self._sending:
            if not self.open:
                return
            self.open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            for _, fd in self._backlog:
                discard(fd)
            self._backlog.clear()
        self._closed()

    def _flush(self) -> None:
        with self._sending:
            if not self.open:
                return
            while self._backlog and self._sent(*self._backlog[0]):
                self._backlog.popleft()
            if self._backlog:
                self._loop.add_writer(self._sock, self._flush)
            else:
                self._loop.remove_writer(self._sock)

    def _sent(self, datagram: bytes, fd: int | None) -> bool:
        """Send one message; False when the other side has to read first."""
        try:
            if fd is None:
                self._sock.send(datagram)
            else:
                socket.send_fds(self._sock, [datagram], [fd])
        except BlockingIOError:
            return False
        except OSError:  # it is as good as sent: the channel is at its end
            self._loop.call_soon_threadsafe(self.close)
        discard(fd)
        return True

    def _on_readable(self) -> None:
        """Take what has come.

        One at a time would let answers wait behind all that the loop has to refuse.
        """
        for _ in range(_BURST):
            if not self.open or not self._read_one():
                return

    def _read_one(self) -> bool:
        """Take one datagram; False when there is none or the channel has ended."""
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(MAX_DATAGRAM, _SPACE, _FLAGS)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        fds = _descriptors(ancillary)
        try:
            # An empty datagram is how the end of the other side looks.
            if not data or flags & _TRUNCATED:
                self.close()
                return False
            self._receive(data, fds[0] if fds else None)
        except Exception:  # one bad message must not end the process
            logs.logger().exception("message dropped, channel closed")
            self.close()
            return False
        finally:
            for fd in fds:
                os.close(fd)
        return True


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    if not ancillary:
        return []
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
