"""The file of API keys, `keys.json` in the home: read, written whole, never torn."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from nnz_service.errors import ImpossibleError, NotFoundError, ServiceError
from nnz_service.keys.caller import ROWS, Quota, Scope
from nnz_service.keys.key import (
    NO_QUOTA,
    Key,
    check_name,
    check_quota,
    digest,
    new_id,
    new_secret,
)

NAME = "keys.json"
_VERSION = 1

#: What reading a document that is no file of keys ends in.
_NO_RECORD = (ValueError, KeyError, TypeError, AttributeError, ImpossibleError)

#: What tells one content of the file from another: written in place or replaced.
Stamp = tuple[int, int, int]


class KeyFileError(ServiceError):
    """The file of keys cannot be read, or is not one."""


class KeyFile:
    """The keys of one home; several processes may change it at once.

    Args:
        home: Folder of the file; made when a key is written.
        clock: Gives seconds since 1970.
    """

    def __init__(self, home: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = home / NAME
        self._clock = clock

    def stamp(self) -> Stamp | None:
        """Return what tells this content from another; None when there is no file.

        Raises:
            KeyFileError: It cannot be looked at.
        """
        try:
            return _stamp(self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(error) from error

    def read(self) -> dict[str, Key]:
        """Return every key by its id; none when there is no file.

        Raises:
            KeyFileError: It cannot be read, or is not a file of keys.
        """
        try:
            content = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            return _parse(orjson.loads(content))
        except _NO_RECORD as error:
            # What stands in it is not repeated: it may be anything.
            kind = type(error).__name__
            raise KeyFileError(
                f"{self.path} is no file of keys of this version ({kind}); "
                "bring back a copy, or remove it and create new keys"
            ) from error

    def create(
        self,
        name: str,
        scopes: frozenset[Scope],
        *,
        expires: float | None = None,
        quota: Quota = NO_QUOTA,
    ) -> tuple[Key, str]:
        """Add a key; returns it and its secret, which nobody can tell again.

        Args:
            name: What people call it.
            scopes: What it is good for; at least one.
            expires: Seconds from now after which it is not known any more.
            quota: How much its holder may ask for.

        Raises:
            ImpossibleError: A name, scope, time or bound is not usable.
        """
        check_name(name)
        check_quota(quota)
        if not scopes:
            raise ImpossibleError(f"a key needs a scope: one of {', '.join(Scope)}")
        if expires is not None and not expires > 0:
            raise ImpossibleError(f"a key that expires in {expires} s opens nothing")
        now = self._clock()
        with self._changing() as keys:
            while (key_id := new_id()) in keys:
                pass
            secret = new_secret(key_id)
            keys[key_id] = Key(
                id=key_id,
                name=name,
                sha256=digest(secret),
                scopes=scopes,
                created=now,
                row=_free_row(keys, now),
                expires=None if expires is None else now + expires,
                quota=quota,
            )
        return keys[key_id], secret

    def revoke(self, key_id: str) -> Key:
        """Disable a key for good; its record stays, for what it made belongs to it.

        Raises:
            NotFoundError: There is none of this id.
        """
        with self._changing() as keys:
            if key_id not in keys:
                raise NotFoundError(f"there is no key {key_id[:40]!r}")
            keys[key_id] = dataclasses.replace(keys[key_id], disabled=True)
        return keys[key_id]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """Give the keys to change, one process at a time, and write them back."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            keys = self.read()
            yield keys
            self._write(keys)
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, keys: Mapping[str, Key]) -> None:
        records = [key.to_record() for key in keys.values()]
        content = orjson.dumps(
            {"version": _VERSION, "keys": records}, option=orjson.OPT_INDENT_2
        )
        # Made with mode 0600, in the same folder: a rename is atomic only there.
        handle, name = tempfile.mkstemp(prefix=f".{NAME}-", dir=self.path.parent)
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - an open descriptor
                file.write(content)
                file.flush()
                self._give_away(file.fileno())
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _give_away(self, handle: int) -> None:
        """Let root create keys for a server that runs as the owner of the home."""
        if os.geteuid() == 0:
            owner = self.path.parent.stat()
            os.fchown(handle, owner.st_uid, owner.st_gid)

    def _unreadable(self, error: OSError) -> KeyFileError:
        return KeyFileError(f"cannot read {self.path}: {error.strerror}")


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_mtime_ns, found.st_ino, found.st_size


def _parse(document: Mapping[str, Any]) -> dict[str, Key]:
    if document["version"] != _VERSION:
        raise ValueError("another version")
    keys = [Key.from_record(record) for record in document["keys"]]
    found = {key.id: key for key in keys}
    if len(found) != len(keys):
        raise ValueError("an id stands twice")
    return found


def _free_row(keys: Mapping[str, Key], now: float) -> int:
    """Choose the row that the fewest living keys have; the lowest of these."""
    taken = Counter(key.row for key in keys.values() if key.usable(now))
    return min(range(1, ROWS), key=lambda row: (taken[row], row))
