"""Files under the SHA-256 of their content, whole or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from nnz_service.errors import NotFoundError, TooLargeError
from nnz_service.repository.records import Blob

CHUNK = 1 << 20


class BlobStore:
    """A folder of blobs; safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._staging = folder / "incoming"
        self._staging.mkdir(parents=True, exist_ok=True)

    def writer(self, limit: int | None = None) -> BlobWriter:
        """Start a blob of at most `limit` bytes."""
        return BlobWriter(self, limit)

    def path(self, sha256: str) -> Path:
        """Where a blob lies.

        Raises:
            NotFoundError: when it is not there.
        """
        path = self._folder / sha256
        if not path.is_file():
            raise NotFoundError(f"blob {sha256} is gone")
        return path

    def adopt(self, path: Path) -> Blob:
        """Hash a finished file and move it in; it must be on the same file system."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        return self._place(path, digest)

    def staged(self, suffix: str = "") -> Path:
        """A fresh empty file beside the blobs, to be filled and then adopted."""
        handle, name = tempfile.mkstemp(suffix=suffix, dir=self._staging)
        os.close(handle)
        return Path(name)

    def delete(self, sha256: str) -> None:
        """Remove a blob; one that is not there is no error."""
        (self._folder / sha256).unlink(missing_ok=True)

    def sweep(self, keep: set[str]) -> int:
        """Remove every blob not in `keep` and all unfinished files; returns how many.

        Only for a moment when nobody else uses the store: before the server starts.
        """
        stale = [p for p in self._files() if p.name not in keep]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def idle(self, seconds: float) -> list[str]:
        """Blobs that were stored at least so long ago, needed or not."""
        names = (path.name for path in self._folder.iterdir() if path.is_file())
        return [name for name in names if self.is_idle(name, seconds)]

    def is_idle(self, sha256: str, seconds: float) -> bool:
        """Whether a blob is there and was stored at least so long ago."""
        return _older(self._folder / sha256, seconds)

    def sweep_staging(self, seconds: float) -> None:
        """Remove unfinished files that nobody has written to for so long."""
        for path in self._staging.iterdir():
            if _older(path, seconds):
                path.unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        for folder in (self._folder, self._staging):
            yield from (path for path in folder.iterdir() if path.is_file())

    def _place(self, path: Path, digest: str) -> Blob:
        target = self._folder / digest
        size = path.stat().st_size
        path.replace(target)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return Blob(digest, target, size)


def _older(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime >= seconds
    except FileNotFoundError:
        return False


class BlobWriter:
    """Takes the bytes of one blob; a context manager that leaves nothing half done."""

    def __init__(self, store: BlobStore, limit: int | None) -> None:
        self._store = store
        self._limit = limit
        self._hash = hashlib.sha256()
        self._size = 0
        #: Where the bytes are until `commit`; after `flush` others may read them.
        self.path = store.staged()
        self._file = self.path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # no room for what was still to be written
            self._file.close()
        self.path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    def write(self, chunk: bytes | memoryview) -> None:
        """Add bytes.

        Raises:
            TooLargeError: when they pass the limit.
        """
        self._size += len(chunk)
        if self._limit is not None and self._size > self._limit:
            raise TooLargeError(f"upload passes the limit of {self._limit} bytes")
        self._hash.update(chunk)
        self._file.write(chunk)

    def flush(self) -> Path:
        """Hand everything to the file; returns its path."""
        self._file.flush()
        return self.path

    def commit(self) -> Blob:
        """Make the blob durable and visible; nothing may be written afterwards."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._store._place(self.path, self._hash.hexdigest())
