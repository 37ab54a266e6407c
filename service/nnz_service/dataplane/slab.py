"""Memory that is written piece by piece, sealed, and sent to the worker as it is.

A large body that were collected in ordinary memory would be copied once more into the
memory that crosses. Pieces are written by `pwrite`, for the kernel fills whole pages
without clearing them first, as it does for those of a mapping.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nnz_service.dataplane.messages import Tensors

#: Where tensors begin: at a cache line, which is the widest vector.
ALIGN = 64
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def make_file() -> int:
    """Return the descriptor of new memory that can be sealed."""
    return os.memfd_create("nnz", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of some bytes.

    Raises:
        OSError: There is no memory left.
    """
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, offset)
        rest, offset = rest[count:], offset + count


class Slab:
    """Grows with what is written to it.

    Args:
        start: Bytes to leave free at the beginning.

    Raises:
        OSError: There are no descriptors left.
    """

    def __init__(self, start: int = 0) -> None:
        self._fd = make_file()
        self.size = start

    def write(self, data: bytes) -> None:
        """Add bytes at the end.

        Raises:
            OSError: There is no memory left.
        """
        write_at(self._fd, data, self.size)
        self.size += len(data)

    def seal(self) -> Sealed:
        """End the writing; the memory is the caller's."""
        fd, self._fd = self._fd, -1
        try:
            os.ftruncate(fd, max(self.size, 1))
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            return Sealed(fd)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Let go of what was not sealed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Sealed(mmap.mmap):
    """A sealed file, mapped for reading; it lives as long as any view of it.

    Args:
        fd: Its descriptor, which is closed with it.
    """

    fd: int
    address: int

    def __new__(cls, fd: int) -> Self:
        """Map it; the descriptor stays the caller's when that fails."""
        size = os.fstat(fd).st_size
        made = super().__new__(
            cls, fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ
        )
        made.fd = fd
        made.address = _address(np.frombuffer(made, np.uint8))
        return made

    def __del__(self) -> None:
        os.close(self.fd)


def sealed_under(tensors: Tensors) -> Sealed | None:
    """Return the sealed memory that holds all of some tensors, fit to be sent."""
    found: Sealed | None = None
    for tensor in tensors.values():
        under = _exporter(tensor)
        if (
            not isinstance(under, Sealed)
            or not tensor.flags.c_contiguous
            or (found is not None and found is not under)
            or offset_in(under, tensor) % ALIGN
        ):
            return None
        found = under
    return found


def offset_in(memory: Sealed, tensor: NDArray[Any]) -> int:
    """Return where a tensor lies in the memory under it."""
    return _address(tensor) - memory.address


def _exporter(tensor: NDArray[Any]) -> object:
    """Return whose memory a view shows."""
    under: object = tensor
    while True:
        if isinstance(under, np.ndarray):
            under = under.base
        elif isinstance(under, memoryview):
            under = under.obj
        else:
            return under


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
