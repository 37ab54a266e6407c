"""Tensors in a memfd: laid out by the sender, believed by the receiver only as far as
the file's real size and seals go.

Each tensor starts at a multiple of 64 bytes, in C order, little-endian. The file is
sealed before it is sent: it can neither shrink under the receiver, which would kill it
with SIGBUS, nor change after its content was checked.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.dataplane.messages import Tensors
from nnz_service.dataplane.slab import (
    ALIGN,
    SEALS,
    Sealed,
    make_file,
    offset_in,
    write_at,
)
from nnz_service.errors import MalformedError
from nnz_service.servable import DATATYPES, datatype

MAX_AXES = 32

#: Name, data type, shape, offset and bytes of one tensor.
Row = tuple[str, str, list[int], int, int]


def lay_out(tensors: Tensors) -> tuple[list[Row], int]:
    """Give every tensor its place; returns the table and the bytes of all.

    Raises:
        MalformedError: when a tensor has a type that cannot cross.
    """
    table: list[Row] = []
    end = 0
    for name, tensor in tensors.items():
        try:
            kind = datatype(tensor.dtype)
        except ValueError as error:
            raise MalformedError(f"tensor {name!r}: {error}") from error
        table.append((name, kind, [*tensor.shape], end, tensor.nbytes))
        end += -(-tensor.nbytes // ALIGN) * ALIGN
    return table, end


def placed(table: Sequence[Row], tensors: Tensors, memory: Sealed) -> list[Row]:
    """Return the table of tensors that stay where they lie in sealed memory."""
    places = (offset_in(memory, tensor) for tensor in tensors.values())
    return [(*row[:3], at, row[4]) for row, at in zip(table, places, strict=True)]


def fill(table: Sequence[Row], tensors: Tensors, size: int, tail: bytes = b"") -> int:
    """Write tensors, and `tail` behind them, into a new sealed memfd.

    Returns:
        Its descriptor, which the caller closes.
    """
    fd = make_file()
    try:
        os.ftruncate(fd, max(size + len(tail), 1))
        for name, kind, _, offset, _ in table:
            tensor = np.ascontiguousarray(tensors[name], DATATYPES[kind])
            write_at(fd, tensor.reshape(-1).view(np.uint8).data, offset)
        write_at(fd, tail, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def inline(text: bytes, table: Sequence[Row], tensors: Tensors, size: int) -> bytes:
    """Write JSON and, aligned behind it, small tensors into one datagram."""
    start = -(-(len(text) + 1) // ALIGN) * ALIGN
    datagram = bytearray(start + size)
    datagram[: len(text)] = text
    for name, kind, shape, offset, nbytes in table:
        if nbytes:
            _view(datagram, kind, shape, start + offset)[...] = tensors[name]
    return bytes(datagram)


def divide(datagram: bytes) -> tuple[bytes, Inlined | None]:
    """Part a datagram into its JSON and what lies behind, if anything does."""
    end = datagram.find(b"\0")  # JSON holds none
    if end < 0:
        return datagram, None
    start = -(-(end + 1) // ALIGN) * ALIGN
    return datagram[:end], Inlined(datagram, start)


class Source:
    """Memory with tensors in it, which a table describes."""

    def __init__(self, memory: Any, start: int, size: int) -> None:
        self._memory = memory
        self._start = start
        self.size = size

    def bytes(self, offset: Any, count: Any) -> bytes:
        """Copy a run of bytes out.

        Raises:
            MalformedError: when it is not inside.
        """
        if not (_is_size(offset) and _is_size(count) and offset + count <= self.size):
            raise MalformedError(f"bytes {offset}+{count} lie outside {self.size}")
        start = self._start + offset
        return bytes(self._memory[start : start + count])

    def tensors(self, table: Any) -> dict[str, NDArray[Any]]:
        """Views of the tensors that a table describes; read-only.

        Raises:
            MalformedError: when the table does not fit the memory, saying where.
        """
        if not isinstance(table, list):
            raise MalformedError("the table of tensors is not a list")
        found: dict[str, NDArray[Any]] = {}
        for row in table:
            name, kind, shape, offset, nbytes = _checked(row, self.size)
            if name in found:
                raise MalformedError(f"tensor {name!r} comes twice")
            found[name] = (
                _view(self._memory, kind, shape, self._start + offset)
                if nbytes
                else np.empty(shape, DATATYPES[kind])
            )
        return found


class Inlined(Source):
    """What follows the JSON of a datagram."""

    def __init__(self, datagram: bytes, start: int) -> None:
        super().__init__(datagram, start, max(0, len(datagram) - start))


class Received(Source):
    """A memfd from the other side, mapped read-only.

    Raises:
        MalformedError: when it is not sealed, so that its sender could still change it.
    """

    def __init__(self, fd: int) -> None:
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError as error:
            raise MalformedError("what came with the message is no memfd") from error
        if seals & SEALS != SEALS:
            raise MalformedError("the memory that came with the message is not sealed")
        size = os.fstat(fd).st_size
        if not size:
            raise MalformedError("the memory that came with the message is empty")
        mapped = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        super().__init__(mapped, 0, size)


def _view(memory: Any, kind: str, shape: Sequence[int], offset: int) -> NDArray[Any]:
    return np.ndarray(tuple(shape), DATATYPES[kind], memory, offset)


def _checked(row: Any, size: int) -> Row:
    if not isinstance(row, list) or len(row) != 5:
        raise MalformedError(f"not a description of a tensor: {str(row)[:100]}")
    name, kind, shape, offset, nbytes = row
    if not isinstance(name, str) or kind not in DATATYPES:
        raise MalformedError(f"tensor {name!r} has the unknown type {kind!r}")
    axes = isinstance(shape, list) and len(shape) <= MAX_AXES
    if not axes or not all(_is_size(axis) for axis in shape):
        raise MalformedError(f"tensor {name!r} has the shape {str(shape)[:100]}")
    if nbytes != math.prod(shape) * DATATYPES[kind].itemsize:
        raise MalformedError(f"tensor {name!r} of shape {shape} has {nbytes} bytes")
    if not _is_size(offset) or offset % ALIGN or offset + nbytes > size:
        raise MalformedError(
            f"tensor {name!r} lies at {offset}+{nbytes}, outside {size} or unaligned"
        )
    return name, kind, shape, offset, nbytes


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
