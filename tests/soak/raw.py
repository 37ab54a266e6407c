"""One raw connection: any bytes go out, whole answers come back, nothing waits long."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass, field

import httptools

#: Seconds after which a case counts as hung.
BOUND = 10.0
_PIECE = 1 << 16


@dataclass
class Answer:
    """What came back for one request; names of headers are in small letters."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def last(self) -> bool:
        """Whether nothing follows it on this connection."""
        return self.headers.get("connection") == "close"


class Line:
    """A connection; `answers` grows while it is read.

    Args:
        address: Host and port.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=BOUND)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = httptools.HttpResponseParser(self)
        self._current = Answer()
        self.answers: list[Answer] = []
        self.ended = False

    def on_message_begin(self) -> None:
        self._current = Answer()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._current.headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._current.body += body

    def on_message_complete(self) -> None:
        self._current.status = self._parser.get_status_code()
        if self._current.status >= 200:
            self.answers.append(self._current)

    def send(self, *pieces: bytes) -> None:
        """Send pieces as packets of their own, or as far as the server listens."""
        try:
            for piece in pieces:
                self._socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has refused what came before; that is still to be read

    def read(self, answers: int, seconds: float = BOUND) -> bool:
        """Read until there are so many answers; returns False when time is over."""
        until = time.monotonic() + seconds
        while not self.ended and len(self.answers) < answers:
            left = until - time.monotonic()
            if left <= 0 or not self.receive(left):
                return False
        return True

    def finish(self) -> bool:
        """Say that nothing more is sent, read to the end; False when it never came."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.ended = True
        return self.read(1 << 30)

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def receive(self, seconds: float) -> bool:
        """Take in what is there, or comes in time; returns whether something did."""
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(_PIECE)
        except TimeoutError:
            return False
        except ConnectionError:
            data = b""
        finally:
            self._socket.settimeout(BOUND)
        if data:
            self._parser.feed_data(data)
        else:
            self.ended = True
        return True

    def abandon(self, after: int) -> None:
        """Read so many bytes, then tear the connection down."""
        if after:
            self._socket.recv(after)
        linger = struct.pack("ii", 1, 0)  # the other side sees a reset
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()

    def close(self) -> None:
        self.ended = True
        self._socket.close()
