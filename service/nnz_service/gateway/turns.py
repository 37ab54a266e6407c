"""One change of a servable at a time: who deletes must not meet who loads."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

_FILES = 64  # names share so many files; two that share one only wait for each other
_PAUSE = 0.02  # seconds between attempts at a lock that another process holds


class Turns:
    """Locks by name, over the tasks of this process and over all that share a folder.

    Args:
        folder: Where the lock files are; made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Hold the turn of one name; a process that ends gives its turns back."""
        file = hashlib.sha256(name.encode()).digest()[0] % _FILES
        # Tasks first: a lock of a file is the process's, whoever took it.
        async with self._locks.setdefault(str(file), asyncio.Lock()):
            handle = self._open(file)
            try:
                while not _locked(handle):  # noqa: ASYNC110 - of other processes
                    await asyncio.sleep(_PAUSE)
                yield
            finally:
                os.close(handle)

    def _open(self, file: int) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        return os.open(self._folder / f"{file}.lock", flags, 0o600)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
