"""Sums of sparse vectors in huge dimensions, beside SciPy's.

Run with ``pytest -m benchmark -s tests/benchmarks/test_vectors.py``. SciPy has no
sparse vector; a matrix of one row in CSR is what its users take. All sides run in turns
in one process, warm, and each answer is compared with SciPy's before anything is timed.
A turn begins with a call that is not timed: it fetches what the others have driven out
of the cache.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from nnz_kernels import cpu
from nnz_kernels.formats import Ragged, SparseVector

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

ENTRIES = 10_000
ROUNDS = 31
Call = Callable[[], Any]


def pair(dimension: int, *, ordered: bool) -> tuple[SparseVector[Any], ...]:
    """Return two vectors of `ENTRIES` entries."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(2):
        indices = rng.choice(dimension, ENTRIES, replace=False).astype(np.int32)
        if ordered:
            indices.sort()
        found.append(SparseVector(indices, rng.standard_normal(ENTRIES), dimension))
    return tuple(found)


def row(u: SparseVector[Any]) -> Any:
    """Return a vector as SciPy's users keep it."""
    indptr = np.array([0, u.indices.size], np.int32)
    return sp.csr_array((u.values, u.indices, indptr), shape=(1, u.size))


def milliseconds(calls: dict[str, Call], rounds: int = ROUNDS) -> dict[str, float]:
    """Return medians, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name in list(calls) * rounds:
        calls[name]()
        for _ in range(3):
            began = time.perf_counter()
            calls[name]()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(found) for name, found in times.items()}


def test_a_huge_dimension_costs_nothing() -> None:
    """The same entries in dimension 1e8 and in 1e5."""
    calls = {}
    for dimension in (10**5, 10**8):
        u, v = pair(dimension, ordered=False)
        calls[f"{dimension:.0e}"] = lambda u=u, v=v: cpu.axpy(u, 0.5, v)

    found = milliseconds(calls)

    print(f"\naxpy, {ENTRIES} entries, by dimension: {found} ms")
    assert found["1e+08"] <= 2 * found["1e+05"]


@pytest.mark.parametrize("dimension", [10**5, 10**8])
@pytest.mark.parametrize(("ordered", "floor"), [(True, 2), (False, 20)])
def test_against_scipy(dimension: int, ordered: bool, floor: float) -> None:
    u, v = pair(dimension, ordered=ordered)
    a, b = row(u), row(v)
    sum_ = cpu.axpy(u, 0.5, v)
    wanted = (a + 0.5 * b).tocoo()
    np.testing.assert_array_equal(np.sort(sum_.indices), np.sort(wanted.coords[1]))
    assert sum_.values.sum() == pytest.approx(wanted.data.sum())

    def theirs() -> Any:
        a.has_canonical_format = b.has_canonical_format = ordered
        return a + 0.5 * b

    calls = {"nnz": lambda: cpu.axpy(u, 0.5, v), "scipy": theirs}
    found = milliseconds(calls, 9 if dimension > 10**6 else 99)

    ratio = found["scipy"] / found["nnz"]
    order = "sorted" if ordered else "unsorted"
    print(f"\naxpy, {order}, dimension {dimension:.0e}: {ratio:.1f}x SciPy, {found} ms")
    assert ratio >= floor


def test_many_in_one_call() -> None:
    """10,000 axpys of 100 entries, and a loop over SciPy's."""
    count, entries, dimension = 10_000, 100, 10**6
    rng = np.random.default_rng(5)
    indptr = np.arange(count + 1, dtype=np.int32) * entries
    sides = []
    for _ in range(2):
        indices = np.sort(rng.integers(0, dimension, (count, entries)), axis=1)
        values = rng.standard_normal(count * entries)
        sides.append(
            Ragged(indptr, indices.astype(np.int32).ravel(), values, dimension)
        )
    u, v = sides
    r = rng.standard_normal(count)
    rows = [
        [
            row(SparseVector(s.indices[k:end], s.values[k:end], dimension))
            for k, end in itertools.pairwise(indptr)
        ]
        for s in sides
    ]

    def theirs() -> list[Any]:
        return [a + f * b for a, b, f in zip(*rows, r, strict=True)]

    got, wanted = cpu.axpy_many(u, r, v), theirs()
    sums = np.add.reduceat(got.values, got.indptr[:-1])
    np.testing.assert_allclose(
        sums, [w.data.sum() for w in wanted], rtol=1e-9, atol=1e-9
    )
    found = milliseconds({"nnz": lambda: cpu.axpy_many(u, r, v), "scipy": theirs}, 5)

    ratio = found["scipy"] / found["nnz"]
    print(f"\n{count} axpys of {entries} entries: {ratio:.0f}x SciPy, {found} ms")
    assert ratio >= 50
