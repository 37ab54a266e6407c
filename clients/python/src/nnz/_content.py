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
    return Content(path.stat().st_size, lambda: _read(path), blocking=True)


def _slices(views: Sequence[memoryview]) -> Iterator[bytes]:
    for view in views:
        for start in range(0, view.nbytes, CHUNK):
            # Whoever joins or sends the chunks takes any buffer; bytes would be a copy.
            yield cast("bytes", view[start : start + CHUNK])


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
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
