from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.vector_cases import (
    FLOATS,
    INDICES,
    U,
    V,
    pairs,
    ragged,
    random_vector,
    same,
    vector,
)

from nnz_kernels import reference
from nnz_kernels.api import Kernels
from nnz_kernels.errors import ShapeError, StructureError
from nnz_kernels.formats import Ragged, SparseVector


class TestMany:
    @FLOATS
    @INDICES
    @pytest.mark.parametrize("size", [50, 2_000_000_000])
    @pytest.mark.parametrize("threads", [1, 2, 3])
    def test_axpy_many(
        self, kernels: Kernels[Any], dtype: Any, index: Any, size: int, threads: int
    ) -> None:
        """K pairs of uneven lengths, some empty, as K single calls."""
        rng = np.random.default_rng(17)
        lengths = [0, 3, 40, 1, 0, 200, 7, 0]
        us = [random_vector(rng, size, n, dtype, index) for n in lengths]
        vs = [random_vector(rng, size, n, dtype, index) for n in lengths[::-1]]
        r = rng.standard_normal(len(us))

        out = kernels.axpy_many(
            ragged(us), r, ragged(vs), zeros="drop_exact", threads=threads
        )

        out.check()
        for k, (u, v) in enumerate(zip(us, vs, strict=True)):
            part = slice(out.indptr[k], out.indptr[k + 1])
            got = SparseVector(out.indices[part], out.values[part], size)
            same(got, reference.axpy(u, r[k], v, zeros="drop_exact"), dtype)

    def test_refused_duplicate(self, kernels: Kernels[Any]) -> None:
        """The position is that inside the pair at fault."""
        us = ragged([vector([(1, 1)]), vector([(2, 1), (3, 1), (2, 1)])])
        vs = ragged([vector([]), vector([])])

        with pytest.raises(StructureError, match=r"u\.indices\[2\] repeats"):
            kernels.axpy_many(us, np.ones(2), vs, duplicates="error")

    @FLOATS
    @INDICES
    def test_dot_many(self, kernels: Kernels[Any], dtype: Any, index: Any) -> None:
        """Bit for bit what single calls give."""
        rng = np.random.default_rng(19)
        us = [random_vector(rng, 90, n, dtype, index) for n in [0, 5, 60, 8]]
        vs = [random_vector(rng, 90, n, dtype, index) for n in [4, 50, 60, 0]]

        out = kernels.dot_many(ragged(us), ragged(vs))

        assert out.dtype == np.float64
        singles = [kernels.dot(u, v) for u, v in zip(us, vs, strict=True)]
        assert out.tolist() == singles

    def test_no_pairs(self, kernels: Kernels[Any]) -> None:
        """K = 0 gives nothing, not an error."""
        none = Ragged(np.zeros(1, np.int32), np.zeros(0, np.int32), np.zeros(0), 9)

        assert kernels.axpy_many(none, np.zeros(0), none).count == 0
        assert kernels.dot_many(none, none).size == 0

    def test_counts_differ(self, kernels: Kernels[Any]) -> None:
        """K vectors need K factors and K partners."""
        one, two = ragged([vector(U)]), ragged([vector(U), vector(V)])

        with pytest.raises(ShapeError, match="1 and 2 vectors"):
            kernels.dot_many(one, two)
        with pytest.raises(ShapeError, match=r"r has shape \(3,\)"):
            kernels.axpy_many(two, np.ones(3), two)


class TestCombine:
    @FLOATS
    @INDICES
    @pytest.mark.parametrize("size", [30, 2_000_000_000])
    def test_equals_reference(
        self, kernels: Kernels[Any], dtype: Any, index: Any, size: int
    ) -> None:
        """u0 + sum of r_k v_k with duplicates everywhere."""
        rng = np.random.default_rng(23)
        u0 = random_vector(rng, size, 13, dtype, index)
        vs = [random_vector(rng, size, n, dtype, index) for n in [6, 0, 44, 2]]
        vs[2].indices[:5] = u0.indices[:5]
        r = np.array([2.0, 3.0, -0.5, 0.0])

        out = kernels.combine(u0, r, ragged(vs))

        same(out, reference.combine(u0, r, ragged(vs)), dtype)

    def test_member_that_cancelled(self, kernels: Kernels[Any]) -> None:
        """An index stays one entry after its value has passed through zero."""
        vs = ragged([vector([(1, 2)]), vector([(1, -2)]), vector([(1, 5)])])

        out = kernels.combine(vector([]), np.ones(3), vs)

        assert pairs(out) == [(1, 5)]
