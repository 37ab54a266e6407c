from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from nnz_kernels import cpu, reference
from nnz_kernels.api import Kernels
from nnz_kernels.arrays import HostArray, Workspace
from nnz_kernels.cpu import stamps
from nnz_kernels.errors import DTypeError, ShapeError, StructureError
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


class InterruptedLoopError(Exception):
    """Stands for whatever ends a loop half way."""


class Interrupting(np.ndarray[Any, Any]):
    """An array of indices that raises when it has been read a number of times."""

    left: int

    @classmethod
    def of(cls, x: HostArray, steps: int) -> Interrupting:
        out = x.view(cls)
        out.left = steps
        return out

    def __getitem__(self, key: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise InterruptedLoopError
        return np.asarray(self)[key]


U = [(0, 1), (1, 6), (3, -3), (7, 7), (10, -10), (11, -3), (12, -7), (14, -8)]
V = [(0, -10), (1, 0), (5, 3), (6, -3), (7, 2), (11, 7)]
W = [(0, 21), (1, 6), (3, -3), (7, 3), (10, -10), (11, -17), (12, -7), (14, -8)]


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
            kernels.axpy(u, 1.0, u, zeros="drop")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="duplicates is 'first'"):
            kernels.axpy(u, 1.0, u, duplicates="first")  # type: ignore[arg-type]


class TestWorkspace:
    @pytest.mark.parametrize("size", [16, 2_000_000_000])
    def test_failed_call_leaves_nothing(self, kernels: Kernels[Any], size: int) -> None:
        """After a call that ended half way the next answer is right."""
        workspace = Workspace()
        bad = vector([(0, 1), (5, 2), (6, 3), (5, 4), (7, 1)], size)

        with pytest.raises(StructureError):
            kernels.axpy(bad, 1.0, bad, workspace=workspace, duplicates="error")
        w = kernels.axpy(vector(U, size), -2.0, vector(V, size), workspace=workspace)

        assert pairs(w) == [*W, (5, -6), (6, 6)]

    def test_reused_many_times(self, kernels: Kernels[Any]) -> None:
        """One workspace serves calls of every size, dense and hashed, in any order."""
        rng = np.random.default_rng(3)
        workspace = Workspace()

        for size in [40, 1_000_000_000, 7, 100_000, 1_000_000_000, 40]:
            u = random_vector(rng, size, 25, np.float64, np.int64)
            v = random_vector(rng, size, 30, np.float64, np.int64)
            w = kernels.axpy(u, 2.0, v, workspace=workspace)
            same(w, reference.axpy(u, 2.0, v), np.float64)

    @pytest.mark.parametrize("size", [16, 2_000_000_000])
    @pytest.mark.parametrize("steps", range(0, 40, 3))
    def test_interrupted_anywhere(self, size: int, steps: int) -> None:
        """Whatever cell the CPU's loop had reached, the next call is right."""
        workspace = Workspace()
        u, v = vector(U, size), vector(V, size)
        cpu.axpy(u, 1.0, v, workspace=workspace)
        dense = size == 16
        out = np.empty(14, np.int32), np.empty(14)

        with suppress(InterruptedLoopError):
            stamps.axpy.py_func(
                Interrupting.of(u.indices, steps),
                u.values,
                -2.0,
                Interrupting.of(v.indices, steps),
                v.values,
                *out,
                workspace.stamps,
                dense,
                stamps.SUM,
                False,
            )
        w = cpu.axpy(u, -2.0, v, workspace=workspace)

        assert pairs(w) == [*W, (5, -6), (6, 6)]

    def test_epoch_overflow(self) -> None:
        """When 31 bits of epochs are used up, the old stamps are forgotten at once."""
        workspace = Workspace()
        u, v = vector(U), vector(V)
        cpu.axpy(u, -2.0, v, workspace=workspace)
        workspace.stamps[0] = stamps.LAST_EPOCH - 2

        for _ in range(4):
            w = cpu.axpy(u, -2.0, v, workspace=workspace)
            assert pairs(w) == [*W, (5, -6), (6, 6)]
        assert workspace.stamps[0] < 10

    def test_cost_ignores_the_dimension(self) -> None:
        """A call touches as many cells as it has entries, and memory does not grow."""
        workspace = Workspace()
        u, v = vector(U, 2_000_000), vector(V, 2_000_000)
        workspace.reserve(2_000_000)

        cpu.axpy(u, -2.0, v, workspace=workspace)
        huge = Workspace()
        far = vector(U, 2**53, index=np.int64)
        cpu.axpy(far, 1.0, far, workspace=huge)

        assert np.count_nonzero(workspace.stamps[1:]) == 10
        assert huge.nbytes < 1000

    def test_scratch_of_threads(self) -> None:
        """Calls without a workspace may run at once in many Python threads."""
        rng = np.random.default_rng(29)
        us = [random_vector(rng, 500, 60, np.float64, np.int32) for _ in range(40)]
        wanted = [cpu.axpy(u, 2.0, us[0]) for u in us]

        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda u: cpu.axpy(u, 2.0, us[0]), us * 5))

        for k, w in enumerate(got):
            assert pairs(w) == pairs(wanted[k % 40])


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
