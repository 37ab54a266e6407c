"""Text files of strangers, plain or gzip: bounded, line by line, faults with a line."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from nnz_service.algebra.limits import Limits
from nnz_service.errors import InvalidMatrixError

#: Longest line that is read whole.
MAX_LINE = 65_536
#: What reading a damaged gzip stream raises.
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


class _Counted(io.RawIOBase):
    """A stream that refuses to give more than the limit."""

    def __init__(self, source: BinaryIO, limits: Limits) -> None:
        self._source, self._limits, self._given = source, limits, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._source.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._given += len(chunk)
        self._limits.check_file(self._given)
        return len(chunk)

    def close(self) -> None:
        self._source.close()
        super().close()


def open_text(path: str | os.PathLike[str], limits: Limits) -> BinaryIO:
    """Open plain or gzip text; closing what is returned closes everything.

    Reading on raises TooLargeError beyond the limit of decompressed bytes, and one of
    `DAMAGED` where the stream is broken.
    """
    with Path(path).open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    start = gzip.open if zipped else open
    source = cast(BinaryIO, start(path, "rb"))
    return io.BufferedReader(_Counted(source, limits), 1 << 20)


def lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text without the ends) of every line.

    Raises:
        InvalidMatrixError: A line is too long, or the gzip stream is damaged.
    """
    number = 0
    try:
        while line := file.readline(MAX_LINE):
            number += 1
            if len(line) == MAX_LINE:
                raise wrong(number, "the line is too long", "at most 65535 bytes")
            yield number, line.decode("latin-1").strip()
    except DAMAGED as exc:
        raise wrong(
            number + 1, f"the gzip stream is damaged ({exc})", "intact"
        ) from exc


def wrong(line: int, what: str, right: str) -> InvalidMatrixError:
    """Make the error of one line: what stands there, and what would be right."""
    return InvalidMatrixError(f"line {line}: {what}, but must be {right}")
