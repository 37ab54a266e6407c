"""Memory of results that nobody holds any more, for the next results.

What malloc takes from the system for each result and gives back comes in fresh pages,
and to have them made costs as much as a sparse sum does. A solver drops each of its
vectors after a step or two.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray

#: Bytes below which malloc has memory at hand, and beyond which pages cost little.
LEAST, MOST = 1 << 15, 1 << 20

#: Pieces that a thread keeps at most.
KEPT = 6


class Recycler(threading.local):
    """What each Python thread keeps: at most `KEPT` pieces of `MOST` bytes."""

    def __init__(self) -> None:
        self._pieces: list[HostArray] = []

    def empty(self, count: int, dtype: np.dtype[Any]) -> HostArray:
        """Return an uninitialised array (count,), as ``np.empty`` does.

        Views of it keep its memory from being used again, as long as there are any.
        """
        nbytes = count * dtype.itemsize
        if not LEAST <= nbytes <= MOST:
            return np.empty(count, dtype)
        for piece in self._pieces:
            if sys.getrefcount(piece) == _IDLE and nbytes <= piece.size <= 2 * nbytes:
                return piece[:nbytes].view(dtype)
        self._pieces[:] = self._pieces[1 - KEPT :]
        self._pieces.append(np.empty(nbytes, np.uint8))
        return self._pieces[-1].view(dtype)


def _references(pieces: list[HostArray]) -> int:
    """Return the references to a piece of which there is no view, where it is asked."""
    for piece in pieces:
        return sys.getrefcount(piece)
    return 0


_IDLE = _references([np.empty(0)])
