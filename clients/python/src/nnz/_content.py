"""Request bodies that can be sent more than once: buffers in memory, files on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

#: Bytes handed to the socket at a time.
CHUNK = 1 << 20
#: Bodies up to this size are joined and sent in one piece.
SMALL = 1 << 18

#: Seconds besides the timeout for which the server may say nothing while it reads a
#: file: 300 for the file, and as long for others before it.
READING = 600.0

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Content:
    """A body of known length that may be opened again for a retry.

    Args:
        length: Bytes in all.
        open: Starts a fresh pass over the bytes.
        blocking: A pass reads from disk, so that an event loop must not run it.
    """

    length: int
    open: Callable[[], Iterator[bytes]]
    blocking: bool = False


def of_buffers(parts: Sequence[Buffer]) -> Content:
    """A body that is these buffers, one after the other, without copying large ones."""
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    length = sum(view.nbytes for view in views)
    if length <= SMALL:
        joined = b"".join(views)
        return Content(length, lambda: iter((joined,)))
    return Content(length, lambda: _slices(views))


def of_file(path: Path) -> Content:
    """A body that is the content of a file, read while it is sent."""
    size = path.stat().st_size
    return Content(size, lambda: _read(path, 0, size), blocking=True)


def of_part(path: Path, offset: int, length: int) -> Content:
    """A body that is a part of a file, shorter where the file ends."""
    left = min(length, path.stat().st_size - offset)
    return Content(left, lambda: _read(path, offset, left), blocking=True)


def _slices(views: Sequence[memoryview]) -> Iterator[bytes]:
    for view in views:
        for start in range(0, view.nbytes, CHUNK):
            # Whoever joins or sends the chunks takes any buffer; bytes would be a copy.
            yield cast("bytes", view[start : start + CHUNK])


def _read(path: Path, offset: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(min(CHUNK, length)):
            length -= len(chunk)
            yield chunk


async def stream(content: Content) -> AsyncIterator[bytes]:
    """The same bytes for an event loop; disk reads happen on a thread."""
    chunks = content.open()
    if not content.blocking:
        for chunk in chunks:
            yield chunk
        return
    while (read := await asyncio.to_thread(next, chunks, None)) is not None:
        yield read
