"""Memory of results that nobody holds any more, for the next results.

What a result gets from the system comes in fresh pages, and to have them made costs as
much as a sparse product does: one of 1e6 rows with one vector took twice as long. But
whoever calls again and again drops each result after a step or two.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import operator
import time
from collections.abc import Callable
from typing import Any, SupportsIndex

import numpy as np

from nnz_kernels.arrays import HostArray

#: Bytes below which malloc has memory at hand: of a block, whose rows should begin
#: cache lines, and of a vector. What malloc gives was in use a moment ago: a sum of
#: 20,000 entries, after one by SciPy, takes 0.10 ms instead of 0.14.
LEAST, LEAST_OF_VECTOR = 1 << 15, 1 << 20

#: Bytes that may lie idle in a process, and in how many pieces.
MOST_IDLE, PIECES = 1 << 29, 32

#: Bytes from which on a piece is a mapping of its own, which goes back to the system at
#: once; malloc would keep it. A process has some ten thousand mappings at most.
MAPPED = 1 << 20

#: Bytes from which on pages of 2 MiB are asked for, as NumPy does.
HUGE = 1 << 22

#: Bytes of a cache line: a row of a result of eight doubles is one.
LINE = 64


class Recycler:
    """Memory for results; safe for several threads at once.

    It holds what is idle and nothing else. Memory comes back at any moment, even while
    the garbage collector runs in the middle of another step; so each step on the dict
    is one call that allocates nothing which the collector looks after.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._idle: dict[int, _Piece] = {}

    def empty(
        self, shape: SupportsIndex | tuple[int, ...], dtype: np.dtype[Any] | type
    ) -> HostArray:
        """Return an uninitialised array of numbers in C order, as ``np.empty`` does.

        Views of it keep its memory from being used again, as long as there are any.
        """
        sizes = shape if isinstance(shape, tuple) else (operator.index(shape),)
        dtype = np.dtype(dtype)
        nbytes = math.prod(sizes) * dtype.itemsize
        if nbytes < (LEAST if len(sizes) > 1 else LEAST_OF_VECTOR):
            return np.empty(sizes, dtype)
        piece = self._found(nbytes) or self._made(nbytes)
        return np.asarray(_Lent(piece, sizes, dtype.str, self))

    @property
    def idle(self) -> int:
        """Bytes that nobody uses."""
        return sum([piece.nbytes for piece in list(self._idle.values())])

    def release(self, seconds: float = 0.0) -> None:
        """Give back to the system what has been idle for so long."""
        until = self._clock() - seconds
        for piece in list(self._idle.values()):
            if piece.since <= until:
                self._idle.pop(id(piece), None)

    def take_back(self, piece: _Piece) -> None:
        """Keep a piece that nobody holds, and let the oldest ones go for it."""
        piece.since = self._clock()
        self._idle[id(piece)] = piece
        pieces = list(self._idle.values())  # in the order in which they came
        total = 0
        for count, older in enumerate(reversed(pieces), 1):
            total += older.nbytes
            if total > MOST_IDLE or count > PIECES:
                self._idle.pop(id(older), None)

    def _found(self, nbytes: int) -> _Piece | None:
        """Take the smallest piece that is large enough, and not far too large."""
        best, size = None, 2 * nbytes + 1
        for piece in list(self._idle.values()):
            if nbytes <= piece.nbytes < size:
                best, size = piece, piece.nbytes
        # Somebody else may have taken it meanwhile.
        return None if best is None else self._idle.pop(id(best), None)

    def _made(self, nbytes: int) -> _Piece:
        try:
            return _Piece(nbytes)
        except MemoryError:
            self.release()
        return _Piece(nbytes)


class _Piece:
    """Memory whose first byte begins a cache line."""

    __slots__ = ("address", "memory", "nbytes", "since")

    def __init__(self, nbytes: int) -> None:
        self.memory = _mapped(nbytes)
        if self.memory is None:
            self.memory = np.empty(nbytes + LINE, np.uint8)
        address = self.memory.ctypes.data
        self.address = address + -address % LINE
        self.nbytes = nbytes
        self.since = 0.0


def _mapped(nbytes: int) -> HostArray | None:
    """Return a mapping of its own, or None where there is none to be had."""
    if nbytes < MAPPED:
        return None
    with contextlib.suppress(OSError):
        pages = mmap.mmap(-1, nbytes)
        if nbytes >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without them
                pages.madvise(mmap.MADV_HUGEPAGE)
        return np.frombuffer(pages, np.uint8)
    return None


class _Lent:
    """What an array of the recycler and its views hold; the last of them ends it."""

    __slots__ = ("__array_interface__", "_piece", "_recycler")

    def __init__(
        self, piece: _Piece, shape: tuple[int, ...], kind: str, recycler: Recycler
    ) -> None:
        self._piece, self._recycler = piece, recycler
        place = (piece.address, False)
        self.__array_interface__ = {
            "data": place, "shape": shape, "typestr": kind, "version": 3,
        }  # fmt: skip

    def __del__(self) -> None:
        self._recycler.take_back(self._piece)


#: What the kernels of this process share.
RECYCLER = Recycler()
