"""Where a hash table beats a dense one: the measurement behind `DENSE_CELLS`.

Run with ``pytest -m benchmark -s tests/benchmarks/test_vector_tables.py``.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from nnz_kernels.arrays import HostArray, Workspace
from nnz_kernels.cpu import stamps, vectors

pytestmark = pytest.mark.benchmark

ENTRIES = (16, 256, 4096, 65_536)
RATIOS = (4, 16, 64, 256, 1024, 4096)


def per_entry(size: int, entries: int, dense: bool) -> float:
    """Return nanoseconds an entry of u + r v, on vectors that change each round."""
    rng = np.random.default_rng(entries)
    half = entries // 2
    workspace = Workspace()
    cells = workspace.reserve(size if dense else vectors._table(entries))
    indices, values = np.empty(entries, np.int32), np.empty(entries)
    pool = [rng.integers(0, size, (2, half)).astype(np.int32) for _ in range(64)]
    data = rng.standard_normal(half)
    # Enough calls to touch about as many cells as a solver's loop over many vectors.
    rounds = max(64, 200_000 // entries)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for k in range(rounds):
            u, v = pool[k % len(pool)]
            _axpy(u, v, data, indices, values, cells, dense)
        best = min(best, time.perf_counter() - start)
    return 1e9 * best / (rounds * entries)


def _axpy(
    u: HostArray,
    v: HostArray,
    data: HostArray,
    indices: HostArray,
    values: HostArray,
    cells: HostArray,
    dense: bool,
) -> None:
    stamps.axpy(u, data, 2.0, v, data, indices, values, cells, dense, stamps.SUM, False)


def test_crossing() -> None:
    """The chosen rule is within 1.6 of the better table everywhere on the grid."""
    print("\nns an entry: entries, size / entries, dense, hash, chosen")
    for entries in ENTRIES:
        for ratio in RATIOS:
            size = ratio * entries
            dense = per_entry(size, entries, True)
            hashed = per_entry(size, entries, False)
            chosen = dense if vectors._is_dense(size, entries) else hashed
            print(f"{entries:7d} {ratio:6d} {dense:7.1f} {hashed:7.1f} {chosen:7.1f}")
            assert chosen <= 1.6 * min(dense, hashed) + 2
