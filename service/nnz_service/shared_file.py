"""A small JSON object that all processes of a server read and change."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from nnz_service.errors import ServiceError, UnavailableError

_PATIENCE = 5.0  # seconds: a lock is held for one small write
_PAUSE = 0.005  # seconds between attempts


class SharedFile:
    """One JSON object in a file; without the file it is empty.

    A change replaces the file, so that nobody ever reads half of one. It need not
    survive the machine: nothing is synced.

    Args:
        path: The file; its folder is made by the first change.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[bytes, Mapping[str, Any]] = (b"", MappingProxyType({}))

    def read(self) -> Mapping[str, Any]:
        """Return what it holds now; parsed again only when it differs."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return MappingProxyType({})
        known, value = self._read
        if raw != known:
            value = MappingProxyType(_object(raw, self._path))
            self._read = raw, value
        return value

    @contextlib.contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        """Hold what it has, for the block to edit; one process and thread at a time.

        Blocks: call it from a thread. An error in the block changes nothing.

        Raises:
            UnavailableError: Somebody has held it for seconds.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._path.with_suffix(".lock")):
            value = _object(orjson.dumps(dict(self.read())), self._path)
            yield value
            replace(self._path, orjson.dumps(value))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file against every other process and thread; blocks.

    Raises:
        UnavailableError: Somebody has held it for seconds.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + _PATIENCE
        while not _took(handle):
            if time.monotonic() > until:
                raise UnavailableError(f"{path.name} has been locked for {_PATIENCE} s")
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(handle)


def replace(path: Path, content: bytes) -> None:
    """Put new content in a file's place, whole or not at all; under its lock."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def _took(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _object(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ServiceError(f"{path} is damaged ({error}); remove it") from error
    if not isinstance(value, dict):
        raise ServiceError(f"{path} is damaged (no object); remove it")
    return value
