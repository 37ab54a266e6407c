"""Files that come in pieces: each is a file whose length says how far it got.

Nothing else is remembered, so that a piece may come to any web process, and after any
of them was started again. Of one that ended it is what it became, for whoever did not
get the answer and asks again.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from nnz_service.errors import (
    ConflictError,
    NotFoundError,
    OverloadedError,
    TooLargeError,
)
from nnz_service.repository.owners import Owner

#: Seconds without a piece after which an upload is given up.
TTL = 86400.0
#: Seconds for which it is known what an upload became.
ENDED_TTL = 3600.0
#: Unfinished uploads of one owner.
MOST = 16
_ID = re.compile(r"u-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload at one moment.

    Args:
        id: Its name, which nobody can guess.
        owner: Id of the key that began it; often empty.
        offset: Bytes that are there.
        length: Bytes that it will have; None while that is not known.
        expires: When it is given up unless a piece comes, in seconds since 1970.
    """

    id: str
    owner: str
    offset: int
    length: int | None
    expires: float


class UploadStore:
    """A folder of unfinished uploads; safe for several processes at once.

    Args:
        folder: Made when the first upload begins.
        clock: Gives seconds since 1970, as the file system does.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def begin(self, owner: Owner, length: int | None, limit: int) -> Upload:
        """Begin an upload.

        Args:
            owner: Whose.
            length: Bytes that it will have, if known.
            limit: Bytes that it may have.

        Raises:
            TooLargeError: The length passes the limit.
            OverloadedError: The owner has too many that are not finished.
        """
        if length is not None and length > limit:
            raise TooLargeError(
                f"an upload of {length} bytes passes the limit of {limit} bytes "
                "(NNZ_MAX_UPLOAD)"
            )
        self.sweep()
        mine = [one for one in self._all() if one.owner == owner.id]
        if len(mine) >= MOST:
            raise OverloadedError(
                f"{len(mine)} uploads are not finished, {MOST} are allowed; finish or "
                "delete one",
                retry_after=60.0,
            )
        identity = f"u-{secrets.token_hex(16)}"
        self._folder.mkdir(parents=True, exist_ok=True)
        about = {"owner": owner.id, "length": length}
        self._path(identity).touch()
        self._about(identity).write_bytes(orjson.dumps(about))
        return self.find(identity, owner)

    def find(self, identity: str, owner: Owner) -> Upload:
        """Return an upload as it stands.

        Raises:
            NotFoundError: There is none of theirs.
        """
        found = self._read(identity) if _ID.fullmatch(identity) else None
        if found is None or not (owner.all or found.owner == owner.id):
            raise NotFoundError(
                f"there is no upload {identity[:40]!r}; it may have expired"
            )
        return found

    def delete(self, identity: str, owner: Owner) -> None:
        """Forget an upload.

        Raises:
            NotFoundError: There is none of theirs.
        """
        self._remove(self.find(identity, owner).id)

    def finish(self, identity: str, owner: Owner, became: str, request: str) -> None:
        """Forget an upload, but not the id of what was made of it.

        Args:
            identity: Its name.
            owner: Whose.
            became: The id.
            request: What was asked for: nothing else is answered by it.

        Raises:
            NotFoundError: There is none of theirs.
        """
        upload = self.find(identity, owner)
        about = {"owner": upload.owner, "became": became, "request": request}
        fresh = self._about(identity).with_suffix(".new")
        fresh.write_bytes(orjson.dumps(about))
        fresh.replace(self._about(identity))
        self._path(identity).unlink(missing_ok=True)

    def became(self, identity: str, owner: Owner, request: str) -> str | None:
        """Return the id of what such a request made of an upload of theirs, if it did.

        It is known for an hour.
        """
        about = self._told(identity) if _ID.fullmatch(identity) else None
        if about is None or about.get("request") != request:
            return None
        found: str | None = about["became"]
        return found if owner.all or about["owner"] == owner.id else None

    @contextmanager
    def held(self, identity: str, owner: Owner) -> Iterator[tuple[Upload, Path]]:
        """Keep an upload as it is; gives it and its file.

        Raises:
            NotFoundError: There is none of theirs.
            ConflictError: Somebody else holds it, a piece that still comes, say.
        """
        self.find(identity, owner)
        try:
            handle = os.open(self._path(identity), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError(f"there is no upload {identity!r}") from None
        try:
            _lock(identity, handle)
            yield self.find(identity, owner), self._path(identity)
        finally:
            os.close(handle)

    @contextmanager
    def appending(
        self, identity: str, owner: Owner, offset: int, limit: int
    ) -> Iterator[Callable[[bytes], None]]:
        """Give a function that writes behind what is there; what it wrote stays.

        Raises:
            NotFoundError: There is none of theirs.
            ConflictError: It has another length than `offset`, or another piece comes.
            TooLargeError: From the function, before it writes beyond the limit.
        """
        with self.held(identity, owner) as (upload, path):
            if upload.offset != offset:
                raise ConflictError(
                    f"the upload has {upload.offset} bytes, so the next piece has "
                    f"Upload-Offset {upload.offset}, not {offset}"
                )
            most = limit if upload.length is None else upload.length
            with path.open("ab", buffering=0) as file:

                def write(chunk: bytes) -> None:
                    if file.tell() + len(chunk) > most:
                        raise TooLargeError(f"the upload passes {most} bytes")
                    rest = memoryview(chunk)
                    while rest:
                        rest = rest[file.write(rest) :]

                yield write

    def sweep(self) -> int:
        """Forget uploads to which no piece came for too long; returns how many."""
        # Also those of which a crash left the bytes alone.
        stale = [name for name in self._names() if self._expiry(name) <= self._clock()]
        for name in stale:
            self._remove(name)
        self._sweep_ends()
        return len(stale)

    def _sweep_ends(self) -> None:
        """Forget what uploads became long ago."""
        for path in self._folder.glob("u-*.*"):
            if self._path(path.stem).exists():
                continue
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime + ENDED_TTL <= self._clock():
                    path.unlink()

    def _all(self) -> list[Upload]:
        found = map(self._read, self._names())
        return [one for one in found if one is not None]

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return [path.name for path in self._folder.iterdir() if not path.suffix]

    def _expiry(self, identity: str) -> float:
        try:
            return self._path(identity).stat().st_mtime + TTL
        except FileNotFoundError:
            return math.inf

    def _read(self, identity: str) -> Upload | None:
        try:
            state = self._path(identity).stat()
        except FileNotFoundError:
            return None
        about = self._told(identity)
        if about is None or "became" in about:
            return None
        expires = state.st_mtime + TTL
        return Upload(identity, about["owner"], state.st_size, about["length"], expires)

    def _told(self, identity: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = orjson.loads(self._about(identity).read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None  # it begins or ends at this moment
        return found

    def _remove(self, identity: str) -> None:
        self._about(identity).unlink(missing_ok=True)
        self._path(identity).unlink(missing_ok=True)

    def _path(self, identity: str) -> Path:
        return self._folder / identity

    def _about(self, identity: str) -> Path:
        return self._folder / f"{identity}.json"


def _lock(identity: str, handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConflictError(
            f"another request writes to or reads upload {identity!r} now"
        ) from None
