"""Memory of results is used again when nobody holds it, and never before."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_kernels import cpu
from nnz_kernels.cpu.recycled import KEPT, LEAST, MOST, Recycler
from nnz_kernels.formats import SparseVector

FLOAT = np.dtype(np.float64)
COUNT = LEAST // 8 + 5


def place(x: NDArray[Any]) -> int:
    return int(x.ctypes.data)


def test_what_was_dropped_is_used_again() -> None:
    recycler = Recycler()
    first = recycler.empty(COUNT, FLOAT)
    where = place(first)
    view = first[3:10]
    del first

    second = recycler.empty(COUNT, FLOAT)
    assert place(second) != where  # the view still has it
    del view
    assert place(recycler.empty(COUNT - 5, FLOAT)) == where


def test_results_in_use_are_never_written() -> None:
    """More of them than are kept, sums of each other, each as it was when made."""
    n = 3000
    u = SparseVector(np.arange(n)[::-1].copy(), np.ones(n), 4 * n)
    results = [u]
    for _ in range(3 * KEPT):
        results.append(cpu.axpy(results[-1], 1.0, u))

    for k, result in enumerate(results):
        assert (result.values == k + 1).all()


def test_sizes() -> None:
    """Small and huge ones are left to malloc; none is given twice what it asked for."""
    recycler = Recycler()
    for count in (LEAST // 8 - 1, MOST // 8 + 1):
        assert recycler.empty(count, FLOAT).base is None
    large = recycler.empty(4 * COUNT, FLOAT)
    where = place(large)
    del large
    assert place(recycler.empty(COUNT, FLOAT)) != where


def test_threads_share_nothing() -> None:
    recycler, places = Recycler(), []
    places.append(place(recycler.empty(COUNT, FLOAT)))
    held = recycler.empty(COUNT, FLOAT)
    other = threading.Thread(
        target=lambda: places.append(place(recycler.empty(COUNT, FLOAT)))
    )
    other.start()
    other.join()

    assert place(held) == places[0] != places[1]
