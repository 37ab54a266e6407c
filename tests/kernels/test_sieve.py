"""Sums in dimensions that dwarf the vectors, whatever these have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.vector_cases import FLOATS, INDICES, same

from nnz_kernels import cpu, reference
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu import sieve, vectors
from nnz_kernels.errors import StructureError
from nnz_kernels.formats import SparseVector

SIZE = 2**31 - 2


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the sieve said of each sum."""
    said: list[int] = []
    axpy = sieve.axpy

    def told(*given: Any) -> int:
        said.append(axpy(*given))
        return said[-1]

    monkeypatch.setattr(sieve, "axpy", told)
    return said


def drawn(count: int, seed: int, index: Any, dtype: Any) -> SparseVector[HostArray]:
    """Different indices, no order."""
    rng = np.random.default_rng(seed)
    indices = np.unique(rng.integers(0, SIZE, 2 * count))
    indices = rng.permutation(indices)[:count].astype(index)
    return SparseVector(indices, rng.standard_normal(count).astype(dtype), SIZE)


def with_indices_of(
    v: SparseVector[HostArray], u: SparseVector[HostArray], places: HostArray
) -> SparseVector[HostArray]:
    indices = v.indices.copy()
    indices[places] = u.indices[places[::-1]]
    return SparseVector(indices, v.values, v.size)


@FLOATS
@INDICES
@pytest.mark.parametrize("counts", [(3000, 3000), (1, 5000), (5000, 2), (0, 90)])
def test_hardly_anything_in_common(
    ways: list[int], dtype: Any, index: Any, counts: tuple[int, int]
) -> None:
    """Some hundred share a bit all the same."""
    u, v = drawn(counts[0], 1, index, dtype), drawn(counts[1], 2, index, dtype)

    same(cpu.axpy(u, -2.5, v), reference.axpy(u, -2.5, v), dtype)
    assert ways == [sum(counts)]


def test_some_in_common(ways: list[int]) -> None:
    """At the first and the last place, side by side, and zeros that come of it."""
    u, v = (drawn(3000, seed, np.int64, np.float64) for seed in (1, 2))
    v = with_indices_of(v, u, np.array([0, 1, 2, 700, 701, 2000, 2998, 2999]))
    v.values[[0, 2]] = -u.values[[2999, 2000]]

    same(cpu.axpy(u, 1.0, v), reference.axpy(u, 1.0, v), np.float64)
    zeros = {"zeros": "drop_exact"}
    same(cpu.axpy(u, 1.0, v, **zeros), reference.axpy(u, 1.0, v, **zeros), np.float64)
    assert ways == [5992, 5990]


def test_much_in_common(ways: list[int]) -> None:
    u, v = (drawn(3000, seed, np.int32, np.float64) for seed in (1, 2))
    v = with_indices_of(v, u, np.arange(2000))

    same(cpu.axpy(u, 3.0, v), reference.axpy(u, 3.0, v), np.float64)
    assert ways == [sieve.MANY]


@pytest.mark.parametrize("twice", ["u", "v"])
def test_duplicates(ways: list[int], twice: str) -> None:
    u, v = (drawn(3000, seed, np.int64, np.float64) for seed in (1, 2))
    {"u": u, "v": v}[twice].indices[2500] = {"u": u, "v": v}[twice].indices[7]

    for policy in ("sum", "last"):
        options: Any = {"duplicates": policy}
        found = cpu.axpy(u, 3.0, v, **options)
        same(found, reference.axpy(u, 3.0, v, **options), np.float64)
    with pytest.raises(StructureError, match=f"{twice}.indices"):
        cpu.axpy(u, 3.0, v, duplicates="error")
    assert ways == [sieve.DUPLICATES] * 3


def test_a_duplicate_that_both_have(ways: list[int]) -> None:
    """Its second time in v is no second match."""
    u, v = (drawn(3000, seed, np.int64, np.float64) for seed in (1, 2))
    v.indices[[5, 900]] = u.indices[77]

    same(cpu.axpy(u, 3.0, v), reference.axpy(u, 3.0, v), np.float64)
    assert ways == [sieve.DUPLICATES]


def test_in_order(ways: list[int]) -> None:
    u, v = (drawn(3000, seed, np.int64, np.float64) for seed in (1, 2))
    for x in (u, v):
        x.indices.sort()

    same(cpu.axpy(u, 3.0, v), reference.axpy(u, 3.0, v), np.float64)
    same(cpu.axpy(u, 3.0, u), reference.axpy(u, 3.0, u), np.float64)
    assert ways == [6000, sieve.MANY]


def test_nothing_is_kept_for_what_is_not_there() -> None:
    u = drawn(300_000, 1, np.int64, np.float64)
    found = cpu.axpy(u, -1.0, u, zeros="drop_exact")
    assert found.nnz == 0
    for part in (found.indices, found.values):
        assert part.base is None


def test_nan_and_infinity() -> None:
    u, v = (drawn(400, seed, np.int64, np.float64) for seed in (1, 2))
    v = with_indices_of(v, u, np.array([3, 9]))
    u.values[[3, 9, 20]] = np.nan, np.inf, -0.0
    v.values[[3, 9, 30]] = np.inf, np.inf, np.nan

    found, wanted = cpu.axpy(u, 0.0, v), reference.axpy(u, 0.0, v)
    np.testing.assert_array_equal(found.values, wanted.values)


def test_bits_for_any_number_of_entries() -> None:
    """Never fewer than a word, and a power of two of them."""
    for entries in (1, 3, 4, 5, 1000, 4096):
        bits, shift, factor, lists = vectors._sieve(entries, entries)
        assert int(factor) % 2 == 1
        assert bits.shape[1] * 64 == 1 << (64 - int(shift))
        assert bits.shape[1] * 64 >= sieve.BITS * entries
        assert lists.shape == (2, entries + 1)
