"""Who changed what, and who was refused: one JSON line each, in `audit.jsonl`.

A line is one append of less than 4 KiB, which is never torn by another's.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from nnz_service import logs
from nnz_service.keys.quota import burst_of, take

NAME = "audit.jsonl"
#: Characters of one value: JSON may write each of them as six bytes, and two of the
#: values (the name of a thing, the id of a request) are a caller's choice.
_VALUE = 256
#: Refusals a second that are written: whoever knocks without end must not push out
#: what was done; the next line says how many were left out.
_REFUSALS = 20.0
#: Seconds between two words about a file that cannot be written.
_SILENCE = 60.0


class AuditLog:
    """Appends lines for all processes of a home; keeps one file and the one before.

    It knows keys by their ids alone: no secret, body or tensor is ever given to it.
    A line that cannot be written is lost, and the fault logged once a minute: a full
    disk stops no request. Thread-safe.

    Args:
        home: Folder of the file.
        limit: Bytes of the file at which it becomes `audit.jsonl.1`.
        clock: Gives seconds since 1970.
        ticks: Gives monotonic seconds.
    """

    def __init__(
        self,
        home: Path,
        limit: int,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = home / NAME
        self._limit = limit
        self._clock = clock
        self._ticks = ticks
        self._lock = threading.Lock()
        self._bucket = (0.0, -math.inf)
        self._left_out = 0
        self._silent_until = -math.inf

    def write(self, *, refused: bool = False, **fields: str | int | None) -> None:
        """Write one line.

        Args:
            refused: Whether somebody was refused for want of a key or a scope.
            **fields: What happened; long values are cut.
        """
        with self._lock:
            if refused and not self._may_tell():
                self._left_out += 1
                return
            line: dict[str, Any] = {
                name: _short(value) if isinstance(value, str) else value
                for name, value in fields.items()
            }
            if self._left_out:
                line["refusals_left_out"] = self._left_out
                self._left_out = 0
            logs.logger().info("audit", **line)
            try:
                self._append({"time": self._clock(), "event": "audit", **line})
            except OSError as error:
                self._complain(error)

    def _append(self, line: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = orjson.dumps(line) + b"\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        handle = os.open(self._path, flags, 0o600)
        try:
            if os.write(handle, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if os.fstat(handle).st_size >= self._limit:
                self._rotate(handle)
        finally:
            os.close(handle)

    def _rotate(self, handle: int) -> None:
        """Set the file aside, unless another process has done so just before."""
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.samestat(os.fstat(handle), self._path.stat()):
            self._path.replace(self._path.with_name(f"{NAME}.1"))

    def _may_tell(self) -> bool:
        tokens, last = self._bucket
        burst = burst_of(_REFUSALS)
        tokens, last, wait = take(tokens, last, self._ticks(), _REFUSALS, burst, 1)
        self._bucket = tokens, last
        return wait == 0

    def _complain(self, error: OSError) -> None:
        if self._ticks() >= self._silent_until:
            self._silent_until = self._ticks() + _SILENCE
            logs.logger().error("audit not written", reason=error.strerror or "unknown")


def _short(value: str) -> str:
    """Cut a text; half of a surrogate pair has no JSON form."""
    return value[:_VALUE].encode("utf-8", "replace").decode()
