"""Memory of results that nobody holds any more, for the next results.

What malloc takes from the system for each result and gives back comes in fresh pages,
and to have them made costs as much as a sparse product does: a product of 1e6 rows with
one vector took twice as long. Whoever calls again and again drops each result after a
step or two.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray

#: Bytes below which malloc has memory at hand.
LEAST = 1 << 15

#: Bytes that may lie idle, and in how many pieces.
MOST_IDLE, PIECES = 1 << 29, 32

#: Bytes of a cache line: a row of a result of eight doubles is one.
LINE = 64


class Recycler:
    """Memory for results; safe for several threads at once.

    It holds what is idle and nothing else. All its steps are single calls of a dict,
    for memory may come back at any moment, also in the middle of another step.
    """

    def __init__(self) -> None:
        self._idle: dict[int, _Piece] = {}

    def empty(
        self, shape: int | Sequence[int], dtype: np.dtype[Any] | type
    ) -> HostArray:
        """Return an uninitialised array in C order, as ``np.empty`` does.

        Views of it keep its memory from being used again, as long as there are any.
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < LEAST:
            return np.empty(shape, dtype)
        piece = self._found(nbytes) or _Piece(nbytes)
        return np.asarray(_Lent(piece, shape, dtype.str, self))

    @property
    def idle(self) -> int:
        """Bytes that nobody uses."""
        return sum(piece.nbytes for piece in list(self._idle.values()))

    def release(self, seconds: float = 0.0) -> None:
        """Give back to the system what has been idle for so long."""
        until = time.monotonic() - seconds
        for key, piece in list(self._idle.items()):
            if piece.since <= until:
                self._idle.pop(key, None)

    def take_back(self, piece: _Piece) -> None:
        """Keep a piece that nobody holds, and let the oldest ones go for it."""
        piece.since = time.monotonic()
        self._idle[id(piece)] = piece
        pieces = list(self._idle.items())  # in the order in which they came
        total = 0
        for count, (key, older) in enumerate(reversed(pieces), 1):
            total += older.nbytes
            if total > MOST_IDLE or count > PIECES:
                self._idle.pop(key, None)

    def _found(self, nbytes: int) -> _Piece | None:
        """Take the smallest piece that is large enough, and not far too large."""
        best, size = 0, 2 * nbytes + 1
        for key, piece in list(self._idle.items()):
            if nbytes <= piece.nbytes < size:
                best, size = key, piece.nbytes
        return self._idle.pop(best, None)


class _Piece:
    """Memory whose first byte begins a cache line."""

    __slots__ = ("address", "memory", "nbytes", "since")

    def __init__(self, nbytes: int) -> None:
        self.memory = np.empty(nbytes + LINE, np.uint8)
        address = self.memory.ctypes.data
        self.address = address + -address % LINE
        self.nbytes = nbytes
        self.since = 0.0


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
