"""Small sparse vectors for tests of every vector op."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Ragged, SparseVector

Pairs = list[tuple[int, float]]
NAN, INF = float("nan"), float("inf")
FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64])
INDICES = pytest.mark.parametrize("index", [np.int32, np.int64])


def vector(
    pairs: Pairs, size: int = 16, dtype: Any = np.float64, index: Any = np.int32
) -> SparseVector[HostArray]:
    indices = np.array([i for i, _ in pairs], index)
    return SparseVector(indices, np.array([d for _, d in pairs], dtype), size)


def pairs(u: SparseVector[HostArray]) -> Pairs:
    return list(zip(u.indices.tolist(), u.values.tolist(), strict=True))


def ragged(vectors: list[SparseVector[HostArray]]) -> Ragged[HostArray]:
    first = vectors[0]
    counts = np.cumsum([0] + [v.nnz for v in vectors])
    return Ragged(
        counts.astype(first.indices.dtype),
        np.concatenate([v.indices for v in vectors]),
        np.concatenate([v.values for v in vectors]),
        first.size,
    )


def random_vector(
    rng: np.random.Generator, size: int, nnz: int, dtype: Any, index: Any
) -> SparseVector[HostArray]:
    indices = rng.integers(0, size, nnz).astype(index)
    return SparseVector(indices, rng.standard_normal(nnz).astype(dtype), size)


def same(a: SparseVector[HostArray], b: SparseVector[HostArray], dtype: Any) -> None:
    assert a.indices.tolist() == b.indices.tolist()
    assert a.values.dtype == dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(a.values, b.values, rtol=tolerance, atol=tolerance)


U = [(0, 1), (1, 6), (3, -3), (7, 7), (10, -10), (11, -3), (12, -7), (14, -8)]
V = [(0, -10), (1, 0), (5, 3), (6, -3), (7, 2), (11, 7)]
W = [(0, 21), (1, 6), (3, -3), (7, 3), (10, -10), (11, -17), (12, -7), (14, -8)]
