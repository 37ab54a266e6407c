"""One page of memory that all processes of a server share: counters, beats, marks.

The supervisor makes it and its children inherit the descriptor. A row has one writer,
the process it belongs to, so a process that is killed leaves at most a row that its
successor clears. Sums over rows are read, and rows changed by what was read, under a
lock that the kernel takes back from a process that ends.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from nnz_service.keys.caller import ROWS

DOORS, WORKERS = 32, 64  # processes that let requests in; that compute
MARKS = 128  # requests of one batch that can be named
FINGERPRINTS = 64

#: Who the process of a row is, and how often it was started: the supervisor's part.
_STARTED = [("name", "S16"), ("starts", "i8")]
_DOOR = np.dtype(
    [
        *_STARTED,
        ("beat", "f8"),
        ("slots", "i8"),
        ("bytes", "i8"),
        ("callers", "i4", (ROWS,)),
    ]
)
_WORKER = np.dtype(
    [
        *_STARTED,
        ("beat", "f8"),
        ("backlog", "i8"),
        ("queued", "i8"),
        ("running", "u8", (MARKS,)),
    ]
)
_BUCKET = np.dtype([("tokens", "f8"), ("last", "f8")])
_FINGERPRINT = np.dtype([("value", "u8"), ("until", "f8")])
_PAGE = np.dtype(
    [
        ("doors", _DOOR, (DOORS,)),
        ("workers", _WORKER, (WORKERS,)),
        ("requests", _BUCKET, (ROWS,)),
        ("work", _BUCKET, (ROWS,)),
        ("refused", _FINGERPRINT, (FINGERPRINTS,)),
        ("refusing", "f8"),  # until when any of them holds
    ]
)
_STALE = 10.0  # seconds without a beat after which a worker's backlog says nothing


class Page:
    """The page, made here or inherited.

    Args:
        fd: Descriptor of a page that another process made; None makes one.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create("nnz-page", os.MFD_CLOEXEC)
            os.ftruncate(fd, _PAGE.itemsize)
        self.fd = fd
        whole: Any = np.ndarray((), _PAGE, mmap.mmap(fd, _PAGE.itemsize))
        self.doors = whole["doors"]
        self.slots, self.bytes = self.doors["slots"], self.doors["bytes"]
        self.callers = self.doors["callers"]
        self.workers = whole["workers"]
        self.requests = whole["requests"]
        self.work = whole["work"]
        self._refused = whole["refused"]
        self._refusing: Any = memoryview(whole["refusing"].reshape(1))
        # Views of what every request writes: they cost a tenth of numpy's items.
        self._running = [memoryview(row["running"]) for row in self.workers]
        self._waiting = [
            memoryview(self.workers[name]) for name in ("queued", "backlog")
        ]
        self._named = [MARKS] * WORKERS
        self._lock = PageLock(fd)

    def close(self) -> None:
        """Let go of the descriptor; what is mapped stays until nobody uses it."""
        os.close(self.fd)

    def lock(self) -> PageLock:
        """Keep other processes and threads out."""
        return self._lock

    def beat(self, row: Any) -> None:
        """Say that the process of a row still goes round."""
        row["beat"] = time.monotonic()

    def restarts(self) -> dict[str, dict[str, int]]:
        """How often processes were started again, by their kind and name."""
        kinds = {"worker": self.workers, "door": self.doors}
        return {
            kind: {
                row["name"].decode(): int(row["starts"]) - 1
                for row in rows[rows["starts"] > 0]
            }
            for kind, rows in kinds.items()
        }

    def backlog(self) -> float:
        """Seconds of work that wait at the worker with the least of it."""
        live = self.workers["beat"] > time.monotonic() - _STALE
        waiting = self.workers["backlog"][live]
        return float(waiting.min()) / 1e9 if waiting.size else 0.0

    def wait(self, worker: int, queued: int, backlog: int) -> None:
        """Write down how many requests wait for a worker, and for how many ns."""
        self._waiting[0][worker], self._waiting[1][worker] = queued, backlog

    def mark(self, worker: int, tokens: Iterable[int]) -> None:
        """Write down what a worker computes from now on; nothing when it is done."""
        row, named = self._running[worker], [one for one in tokens if one][:MARKS]
        for place, token in enumerate(named):
            row[place] = token
        for place in range(len(named), self._named[worker]):
            row[place] = 0
        self._named[worker] = len(named)

    def marked(self, token: int) -> bool:
        """Whether some worker computes this request, or did when it ended."""
        return bool(token) and bool((self.workers["running"] == token).any())

    def refuse(self, fingerprint: int, seconds: float) -> None:
        """Remember for a while that a request must not run again."""
        with self.lock():
            oldest = int(self._refused["until"].argmin())
            until = time.monotonic() + seconds
            self._refused[oldest] = (fingerprint, until)
            self._refusing[0] = max(self._refusing[0], until)

    @property
    def refuses(self) -> bool:
        """Whether any request is refused now."""
        return bool(self._refusing[0] > time.monotonic())

    def refused(self, fingerprint: int) -> bool:
        """Whether this request is one of them."""
        same = self._refused["value"] == fingerprint
        return bool((same & (self._refused["until"] > time.monotonic())).any())


class PageLock:
    """A lock over all processes and their threads, which ends with who holds it.

    Args:
        fd: Descriptor of the page.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._threads = threading.Lock()  # the kernel knows only processes

    def __enter__(self) -> None:
        self._threads.acquire()
        fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)
        self._threads.release()


def note_start(row: Any, name: str) -> None:
    """Write into its row that a process is started; for the supervisor alone.

    Args:
        row: Of `Page.doors` or `Page.workers`.
        name: Of at most 16 bytes.
    """
    row["beat"] = 0.0
    row["name"] = name.encode()
    row["starts"] += 1
