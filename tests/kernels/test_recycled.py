"""Memory of results is used again when nobody holds it, and never before."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnz_kernels import cpu
from nnz_kernels.cpu import recycled
from nnz_kernels.cpu.recycled import LEAST, LEAST_OF_VECTOR, LINE, Recycler
from nnz_kernels.formats import SparseVector

FLOAT = np.dtype(np.float64)
COUNT = LEAST_OF_VECTOR // 8 + 5


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
    n = 70_000
    assert 2 * n * 8 > LEAST_OF_VECTOR
    u = SparseVector(np.arange(n)[::-1].copy(), np.ones(n), 4 * n)
    results = [u]
    for _ in range(3 * recycled.PIECES):
        results.append(cpu.axpy(results[-1], 1.0, u))

    for k, result in enumerate(results):
        assert (result.values == k + 1).all()


def test_sizes() -> None:
    """Small ones are left to malloc; none is given far more than it asked for."""
    recycler = Recycler()
    for least, shape in ((LEAST, (LEAST // 64, 8)), (LEAST_OF_VECTOR, (COUNT - 5,))):
        assert recycler.empty(shape, FLOAT).nbytes == least
        assert recycler.empty(shape, FLOAT).base is not None
        assert recycler.empty((shape[0] - 1, *shape[1:]), FLOAT).base is None
    large = recycler.empty(4 * COUNT, FLOAT)
    where = place(large)
    del large
    assert place(recycler.empty(COUNT, FLOAT)) != where
    assert place(recycler.empty(3 * COUNT, FLOAT)) == where


def test_form() -> None:
    """As of ``np.empty``, and it begins a cache line."""
    for shape, dtype in (((7, 1000), np.complex128), ((300_001,), np.int32)):
        x = Recycler().empty(shape, dtype)
        assert (x.shape, x.dtype) == (shape, dtype)
        assert x.flags.c_contiguous
        assert x.flags.writeable
        assert place(x) % LINE == 0
        x[...] = 3
        assert (x == 3).all()


def test_idle_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By bytes and by pieces; what was used last stays."""
    recycler, nbytes = Recycler(), 8 * COUNT
    held = [recycler.empty(COUNT, FLOAT) for _ in range(8)]
    monkeypatch.setattr(recycled, "MOST_IDLE", 3 * nbytes)
    last = [place(x) for x in held[-3:]]
    while held:
        del held[0]
    found = [recycler.empty(COUNT, FLOAT) for _ in range(4)]
    assert len({place(x) for x in found} & set(last)) == 3

    monkeypatch.setattr(recycled, "PIECES", 1)
    kept = place(found[-1])
    while found:
        del found[0]
    again = [recycler.empty(COUNT, FLOAT) for _ in range(2)]
    assert place(again[0]) == kept


@pytest.mark.parametrize("count", [COUNT, recycled.MAPPED // 4, recycled.HUGE])
def test_release(count: int) -> None:
    now = [100.0]
    recycler = Recycler(clock=lambda: now[0])
    recycler.empty(count, FLOAT)  # and dropped
    assert recycler.idle == 8 * count
    now[0] += 5
    recycler.release(10)
    assert recycler.idle == 8 * count
    now[0] += 6
    recycler.release(10)
    assert recycler.idle == 0


def test_what_is_released_is_free() -> None:
    """Not kept by malloc, whatever lies beside it."""
    recycler = Recycler()
    held: list[Any] = []
    for _ in range(30):
        held += [recycler.empty(1 << 20, FLOAT), np.zeros(100)]
        held[-2][:] = 1
    full = resident()
    del held[::2]
    recycler.release()

    assert resident() < full - (200 << 20)


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_the_collector_may_come_at_any_moment() -> None:
    """It frees arrays of cycles in the middle of a step, which brings memory back."""
    recycler, before = Recycler(), gc.get_threshold()
    gc.set_threshold(1, 2, 2)
    try:
        for turn in range(3000):
            cycle: list[Any] = [recycler.empty(COUNT + turn % 20, FLOAT)]
            cycle.append(cycle)
            del cycle
    finally:
        gc.set_threshold(*before)


def test_memory_that_is_short_comes_from_what_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recycler = Recycler()
    recycler.empty(8 * COUNT, FLOAT)  # and dropped
    made = recycled._Piece

    def short(nbytes: int) -> recycled._Piece:
        if recycler.idle:
            raise MemoryError
        return made(nbytes)

    monkeypatch.setattr(recycled, "_Piece", short)
    assert recycler.empty(COUNT, FLOAT).shape == (COUNT,)


def test_threads() -> None:
    """Eight take, write, look and drop; nobody sees what another wrote."""
    recycler, wrong = Recycler(), []

    def work(number: int) -> None:
        for turn in range(300):
            x = recycler.empty(COUNT + turn % 7, np.dtype(np.int64))
            x[:] = number
            if (x != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
