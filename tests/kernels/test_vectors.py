from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.vector_cases import (
    FLOATS,
    INDICES,
    INF,
    NAN,
    Pairs,
    U,
    V,
    W,
    pairs,
    random_vector,
    same,
    vector,
)

from nnz_kernels import reference
from nnz_kernels.api import Kernels
from nnz_kernels.errors import DTypeError, ShapeError, StructureError
from nnz_kernels.formats import SparseVector


class TestAxpy:
    @FLOATS
    @INDICES
    def test_founding_example(
        self, kernels: Kernels[Any], dtype: Any, index: Any
    ) -> None:
        """The order is that of u, then what v alone has, as it comes."""
        u, v = vector(U, dtype=dtype, index=index), vector(V, dtype=dtype, index=index)

        w = kernels.axpy(u, -2.0, v)

        assert pairs(w) == [*W, (5, -6), (6, 6)]
        assert w.values.dtype == dtype
        assert w.indices.dtype == index

    @pytest.mark.parametrize(
        ("u", "r", "v", "keep", "drop"),
        [
            pytest.param(
                [(0, 1)], 1, [(3, 0), (4, 1)],
                [(0, 1), (3, 0), (4, 1)], [(0, 1), (4, 1)],
                id="explicit zero in v",
            ),
            pytest.param(
                [(0, 0), (2, 5)], 1, [(4, 1)],
                [(0, 0), (2, 5), (4, 1)], [(2, 5), (4, 1)],
                id="explicit zero in u",
            ),
            pytest.param(
                [(1, -2), (2, 1)], 1, [(1, 2)],
                [(1, 0), (2, 1)], [(2, 1)],
                id="cancellation",
            ),
            pytest.param(
                [(0, 1)], 1e-300, [(6, 1e-300)],
                [(0, 1), (6, 0)], [(0, 1)],
                id="underflow",
            ),
            pytest.param([], 3, [(2, 1)], [(2, 3)], [(2, 3)], id="empty u"),
            pytest.param([(2, 1)], 3, [], [(2, 1)], [(2, 1)], id="empty v"),
            pytest.param([], 3, [], [], [], id="both empty"),
            pytest.param([(1, 2)], 0, [(5, 9)], [(1, 2), (5, 0)], [(1, 2)], id="r = 0"),
        ],
    )  # fmt: skip
    def test_zeros(
        self,
        kernels: Kernels[Any],
        u: Pairs,
        r: float,
        v: Pairs,
        keep: Pairs,
        drop: Pairs,
    ) -> None:
        """``keep`` depends on patterns alone; ``drop_exact`` leaves every zero out."""
        kept = kernels.axpy(vector(u), r, vector(v), zeros="keep")
        dropped = kernels.axpy(vector(u), r, vector(v), zeros="drop_exact")

        assert pairs(kept) == keep
        assert pairs(dropped) == drop

    def test_negative_zero(self, kernels: Kernels[Any]) -> None:
        """A -0.0 keeps its sign where nothing is added, and counts as a zero."""
        u, v = vector([(0, -0.0), (1, 1.0)]), vector([(5, -0.0)])

        kept = kernels.axpy(u, 1.0, v)
        dropped = kernels.axpy(u, 1.0, v, zeros="drop_exact")

        assert pairs(kept) == [(0, 0), (1, 1), (5, 0)]
        assert np.signbit(kept.values).tolist() == [True, False, True]
        assert pairs(dropped) == [(1, 1)]

    def test_nan_and_infinity(self, kernels: Kernels[Any]) -> None:
        """NaN and inf - inf are values like any other, and are never dropped."""
        u, v = vector([(1, INF), (2, NAN)]), vector([(1, -INF), (7, NAN), (8, INF)])

        w = kernels.axpy(u, 1.0, v, zeros="drop_exact")

        assert w.indices.tolist() == [1, 2, 7, 8]
        np.testing.assert_array_equal(w.values, [NAN, NAN, NAN, INF])

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ("sum", [(4, 10 + 1 + 2 * 6), (5, 2 * 9)]),
            ("last", [(4, 1 + 2 * 4), (5, 2 * 5)]),
        ],
    )
    def test_duplicates(
        self, kernels: Kernels[Any], policy: Any, expected: Pairs
    ) -> None:
        """Duplicates of one operand are added, or the later replaces the earlier."""
        u, v = vector([(4, 10), (4, 1)]), vector([(4, 2), (5, 4), (4, 4), (5, 5)])

        assert pairs(kernels.axpy(u, 2.0, v, duplicates=policy)) == expected

    @pytest.mark.parametrize(
        ("u", "v", "message"),
        [
            ([(4, 1), (2, 1), (4, 1)], [], r"u\.indices\[2\] repeats the index 4"),
            ([(4, 1)], [(4, 1), (4, 1)], r"v\.indices\[1\] repeats the index 4"),
            ([], [(1, 1), (4, 1), (1, 1)], r"v\.indices\[2\] repeats the index 1"),
        ],
    )
    def test_duplicates_refused(
        self, kernels: Kernels[Any], u: Pairs, v: Pairs, message: str
    ) -> None:
        """``error`` names the operand, the position and the index."""
        with pytest.raises(StructureError, match=message):
            kernels.axpy(vector(u), 1.0, vector(v), duplicates="error")

    def test_shared_index_is_no_duplicate(self, kernels: Kernels[Any]) -> None:
        """An index that both operands have once is what addition is for."""
        w = kernels.axpy(vector([(4, 1)]), 1.0, vector([(4, 1)]), duplicates="error")

        assert pairs(w) == [(4, 2)]

    @FLOATS
    @INDICES
    @pytest.mark.parametrize("size", [5, 300, 2_000_000_000])
    @pytest.mark.parametrize("duplicates", ["sum", "last"])
    def test_equals_reference(
        self, kernels: Kernels[Any], dtype: Any, index: Any, size: int, duplicates: Any
    ) -> None:
        """Many duplicates, some, and a dimension that only a hash table can serve."""
        rng = np.random.default_rng(11)
        u = random_vector(rng, size, 71, dtype, index)
        v = random_vector(rng, size, 40, dtype, index)
        v.indices[:9] = u.indices[:9]

        w = kernels.axpy(u, 0.75, v, duplicates=duplicates)

        same(w, reference.axpy(u, 0.75, v, duplicates=duplicates), dtype)

    @FLOATS
    @INDICES
    @pytest.mark.parametrize("size", [64, 65, 1000])
    @pytest.mark.parametrize("zeros", ["keep", "drop_exact"])
    def test_vectors_without_duplicates(
        self, kernels: Kernels[Any], dtype: Any, index: Any, size: int, zeros: Any
    ) -> None:
        """In any order, all that there are or some, with sums of zero; any policy."""
        rng = np.random.default_rng(size)
        for first, second in ((64, 64), (40, 3), (1, 50), (0, 30), (30, 0)):
            found = []
            for count in (first, second):
                indices = rng.permutation(size)[:count].astype(index)
                values = rng.integers(-2, 3, count).astype(dtype)
                found.append(SparseVector(indices, values, size))
            wanted = reference.axpy(found[0], 1.0, found[1], zeros=zeros)
            for policy in ("sum", "error", "last"):
                w = kernels.axpy(*found[:1], 1.0, *found[1:], zeros=zeros,
                                 duplicates=policy)  # fmt: skip
                same(w, wanted, dtype)
                np.testing.assert_array_equal(w.indices, wanted.indices)

    @FLOATS
    @INDICES
    @pytest.mark.parametrize("count", [3, 4, 20_000, 20_001])
    def test_a_result_is_as_good_as_an_operand(
        self, kernels: Kernels[Any], dtype: Any, index: Any, count: int
    ) -> None:
        """Aligned, and still there when its other half is not."""
        rng = np.random.default_rng(1)
        parts = [
            SparseVector(start + np.arange(length, dtype=index), values, 10**6)
            for start, length in ((0, 20_000), (10_000, count))
            for values in [rng.standard_normal(length).astype(dtype)]
        ]
        indices = kernels.axpy(parts[0], 0.5, parts[1]).indices
        values = kernels.axpy(parts[0], 0.5, parts[1]).values
        wanted = reference.axpy(parts[0], 0.5, parts[1])

        again = kernels.axpy(parts[1], 0.5, parts[0])  # in memory that came back

        for half, right in (
            (indices, wanted.indices), (values, wanted.values), (again.values, None),
        ):  # fmt: skip
            half = np.asarray(half)
            assert half.flags.carray
            if right is not None:
                np.testing.assert_array_equal(half, right)

    def test_refusals(self, kernels: Kernels[Any]) -> None:
        """Operands that do not fit are named with what they are."""
        u = vector(U)
        with pytest.raises(ShapeError, match="sizes 16 and 17"):
            kernels.axpy(u, 1.0, vector(V, size=17))
        with pytest.raises(DTypeError, match="float64 and float32"):
            kernels.axpy(u, 1.0, vector(V, dtype=np.float32))
        with pytest.raises(DTypeError, match="int32 and int64"):
            kernels.axpy(u, 1.0, vector(V, index=np.int64))
        with pytest.raises(ValueError, match="zeros is 'drop'"):
            kernels.axpy(u, 1.0, u, zeros="drop")
        with pytest.raises(ValueError, match="duplicates is 'first'"):
            kernels.axpy(u, 1.0, u, duplicates="first")


class TestDot:
    @FLOATS
    @INDICES
    def test_by_hand(self, kernels: Kernels[Any], dtype: Any, index: Any) -> None:
        """1*-10 + 6*0 + 7*2 + -3*7 of the founding example."""
        u, v = vector(U, dtype=dtype, index=index), vector(V, dtype=dtype, index=index)

        assert kernels.dot(u, v) == -17.0

    def test_duplicates_are_summed(self, kernels: Kernels[Any]) -> None:
        """(1 + 2) * (10 + 5)."""
        u, v = vector([(3, 1), (3, 2)]), vector([(3, 10), (1, 9), (3, 5)])

        assert kernels.dot(u, v) == 45.0
        assert kernels.dot(v, u) == 45.0

    def test_empty_and_disjoint(self, kernels: Kernels[Any]) -> None:
        """Nothing in common gives 0."""
        assert kernels.dot(vector([]), vector(V)) == 0.0
        assert kernels.dot(vector([(2, 5)]), vector([(3, 5)])) == 0.0

    def test_nan(self, kernels: Kernels[Any]) -> None:
        """A NaN counts only where the other operand has an entry."""
        u = vector([(1, NAN), (2, 3)])

        assert kernels.dot(u, vector([(2, 2)])) == 6.0
        assert np.isnan(kernels.dot(u, vector([(1, 0), (2, 2)])))

    @pytest.mark.parametrize("size", [60, 1_000_000_000])
    def test_equals_reference(self, kernels: Kernels[Any], size: int) -> None:
        """Random vectors with duplicates, dense table and hash table."""
        rng = np.random.default_rng(5)
        u = random_vector(rng, size, 90, np.float32, np.int32)
        v = random_vector(rng, size, 33, np.float32, np.int32)
        v.indices[:20] = u.indices[:20]

        assert kernels.dot(u, v) == pytest.approx(reference.dot(u, v), rel=1e-6)


class TestGatherAndScatter:
    @FLOATS
    def test_scatter(self, kernels: Kernels[Any], dtype: Any) -> None:
        """Duplicates are summed; the rest is zero."""
        out = kernels.scatter(vector([(3, 1), (0, 5), (3, 2)], 5, dtype))

        assert out.tolist() == [5, 0, 0, 3, 0]
        assert out.dtype == dtype

    @INDICES
    def test_gather(self, kernels: Kernels[Any], index: Any) -> None:
        """Any order, repeats allowed."""
        x = np.array([5.0, 6.0, 7.0])

        assert kernels.gather(x, np.array([2, 0, 2], index)).tolist() == [7, 5, 7]

    @pytest.mark.parametrize("wrong", [-1, 3])
    def test_gather_outside(self, kernels: Kernels[Any], wrong: int) -> None:
        """No index wraps around."""
        with pytest.raises(ShapeError, match=rf"indices\[1\] is {wrong}"):
            kernels.gather(np.zeros(3), np.array([0, wrong], np.int64))
