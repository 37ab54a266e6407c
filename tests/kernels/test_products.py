from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from nnz_kernels import cpu, reference
from nnz_kernels.api import Kernels
from nnz_kernels.arrays import HostArray
from nnz_kernels.convert import csr_from_dense, csr_to_scipy
from nnz_kernels.cpu import products, spmv_rows
from nnz_kernels.cpu.recycled import LEAST
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.formats import Csr
from nnz_kernels.hosted import hosted

FLOATS = pytest.mark.parametrize("dtype", [np.float32, np.float64])
INDICES = pytest.mark.parametrize("index", [np.int32, np.int64])
#: Empty matrices, empty rows and columns, one row, one column, no size that a register
#: or a chunk divides.
SHAPES = pytest.mark.parametrize(
    "shape", [(0, 0), (0, 5), (4, 0), (1, 1), (1, 300), (300, 1), (33, 65), (257, 129)]
)


def matrix(
    shape: tuple[int, int],
    density: float = 0.2,
    dtype: Any = np.float64,
    index: Any = np.int32,
    seed: int = 7,
) -> Csr[HostArray]:
    """Return a random matrix whose rows are of very different lengths."""
    rng = np.random.default_rng(seed)
    m, n = shape
    share = rng.random((m, 1)) * 2 * density * (rng.random((m, 1)) < 0.7)
    dense = rng.standard_normal((m, n)) * (rng.random((m, n)) < share)
    a = csr_from_dense(dense.astype(dtype))
    return Csr(a.indptr.astype(index), a.indices.astype(index), a.data, a.shape)


def operand(shape: tuple[int, ...], dtype: Any) -> HostArray:
    return np.random.default_rng(3).standard_normal(shape).astype(dtype)


def close(out: HostArray, wanted: HostArray, dtype: Any) -> None:
    assert out.dtype == dtype
    assert out.flags.c_contiguous
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(out, wanted, rtol=tolerance, atol=tolerance)


class TestByHand:
    def test_all_four(self, kernels: Kernels[Any]) -> None:
        """[[0, 2, 0], [0, 0, 0], [3, 4, -1]] against small integers."""
        a = csr_from_dense(np.array([[0.0, 2, 0], [0, 0, 0], [3, 4, -1]]))
        x = np.array([1.0, 10, 100])
        block = np.array([[1.0, 0], [0, 1], [2, 3]])

        assert kernels.spmv(a, x).tolist() == [20, 0, -57]
        assert kernels.spmv_t(a, x).tolist() == [300, 402, -100]
        assert kernels.spmm(a, block).tolist() == [[0, 2], [0, 0], [1, 1]]
        assert kernels.spmm_t(a, block).tolist() == [[6, 9], [10, 12], [-2, -3]]


class TestEqualsReference:
    @FLOATS
    @INDICES
    @SHAPES
    @pytest.mark.parametrize("threads", [1, 2])
    def test_vector(
        self,
        kernels: Kernels[Any],
        dtype: Any,
        index: Any,
        shape: tuple[int, int],
        threads: int,
    ) -> None:
        """spmv and spmv_t."""
        a = matrix(shape, dtype=dtype, index=index)
        x, y = operand((shape[1],), dtype), operand((shape[0],), dtype)

        close(kernels.spmv(a, x, threads=threads), reference.spmv(a, x), dtype)
        close(kernels.spmv_t(a, y, threads=threads), reference.spmv_t(a, y), dtype)

    @FLOATS
    @INDICES
    @SHAPES
    @pytest.mark.parametrize("width", [0, 1, 2, 7, 8, 17, 70, 150])
    def test_block(
        self,
        kernels: Kernels[Any],
        dtype: Any,
        index: Any,
        shape: tuple[int, int],
        width: int,
    ) -> None:
        """spmm and spmm_t at widths around every register."""
        a = matrix(shape, dtype=dtype, index=index)
        x, y = operand((shape[1], width), dtype), operand((shape[0], width), dtype)

        close(kernels.spmm(a, x), reference.spmm(a, x), dtype)
        close(kernels.spmm_t(a, y), reference.spmm_t(a, y), dtype)

    def test_unsorted_and_duplicate(self, kernels: Kernels[Any]) -> None:
        """Rows need no order, and an index met twice counts twice."""
        a = Csr(
            np.array([0, 3], np.int32),
            np.array([2, 0, 2], np.int32),
            np.array([1.0, 5.0, 10.0]),
            (1, 3),
        )

        assert kernels.spmv(a, np.array([1.0, 1, 2])).tolist() == [27]
        assert kernels.spmv_t(a, np.array([2.0])).tolist() == [10, 0, 22]

    def test_nan_and_infinity(self, kernels: Kernels[Any]) -> None:
        """A NaN reaches the rows that touch it, and no other."""
        a = csr_from_dense(np.array([[1.0, 0], [0, 1], [1, 1]]))
        x = np.array([np.nan, np.inf])

        np.testing.assert_array_equal(kernels.spmv(a, x), [np.nan, np.inf, np.nan])
        np.testing.assert_array_equal(
            kernels.spmm(a, x[:, None])[:, 0], [np.nan, np.inf, np.nan]
        )

    def test_read_only_and_strided(self, kernels: Kernels[Any]) -> None:
        """A mapped file and a strided view are as good as fresh arrays."""
        a = matrix((30, 20))
        frozen = a.map(np.copy)
        for array in (frozen.indptr, frozen.indices, frozen.data):
            array.flags.writeable = False
        x = operand((40,), np.float64)[::2]
        block = operand((20, 6), np.float64)[:, ::2]

        close(kernels.spmv(frozen, x), reference.spmv(a, x), np.float64)
        close(kernels.spmm(frozen, block), reference.spmm(a, block), np.float64)


class TestRefusals:
    def test_shapes_and_types(self, kernels: Kernels[Any]) -> None:
        """What does not fit is named with both shapes or both types."""
        a = matrix((4, 6))
        with pytest.raises(ShapeError, match=r"\(4,\), but a matrix .* needs \(6,\)"):
            kernels.spmv(a, np.zeros(4))
        with pytest.raises(ShapeError, match=r"needs \(4, k\)"):
            kernels.spmm_t(a, np.zeros((6, 2)))
        with pytest.raises(ShapeError):
            kernels.spmm(a, np.zeros(6))
        with pytest.raises(DTypeError, match="float64 and the dense operand float32"):
            kernels.spmv(a, np.zeros(6, np.float32))


class TestOrder:
    """The CPU's promise: bits depend on the matrix, not on threads or company."""

    @FLOATS
    def test_column_is_a_vector_product(self, dtype: Any) -> None:
        """Column j of a block product has the bits of the product with column j."""
        a = matrix((500, 400), dtype=dtype)
        x = operand((400, 37), dtype)

        out = cpu.spmm(a, x)

        for j in range(37):
            assert out[:, j].tobytes() == cpu.spmv(a, x[:, j].copy()).tobytes()

    @FLOATS
    @pytest.mark.parametrize("width", [7, 8, 16, 24, 32, 48, 112])
    def test_past_the_cache(
        self, monkeypatch: pytest.MonkeyPatch, dtype: Any, width: int
    ) -> None:
        """A large result has the same bits as a small one."""
        a = matrix((2000, 400), dtype=dtype)
        assert 2000 * width * 4 > LEAST  # aligned, as whole registers need
        x = operand((400, width), dtype)
        wanted = cpu.spmm(a, x)

        monkeypatch.setattr(products, "PAST", 0)

        for threads in (1, 2):
            assert cpu.spmm(a, x, threads=threads).tobytes() == wanted.tobytes()

    @FLOATS
    def test_threads(self, dtype: Any) -> None:
        """One thread and several give the same bits, transposed or not."""
        a = matrix((900, 300), 0.5, dtype)
        x, y = operand((300, 40), dtype), operand((900, 40), dtype)
        assert a.nnz > 80_000  # enough that threads are really used

        for op, dense in ((cpu.spmm, x), (cpu.spmm_t, y)):
            assert op(a, dense, threads=1).tobytes() == op(a, dense).tobytes()
        for op, dense in ((cpu.spmv, x[:, 0]), (cpu.spmv_t, y[:, 0])):
            vector = dense.copy()
            assert op(a, vector, threads=1).tobytes() == op(a, vector).tobytes()

    @INDICES
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
    @pytest.mark.parametrize("most", [1, 2, 9])
    def test_rows_of_uneven_length(self, dtype: Any, index: Any, most: int) -> None:
        """The entry after an odd row is computed, and no part of its sum.

        Not where the next row holds infinities, nor behind the last entry of all.
        """
        rng = np.random.default_rng(most)
        lengths = rng.integers(0, most + 1, 2100)
        lengths[-3:] = most, 0, 0
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(index)
        indices = rng.integers(0, 40, indptr[-1]).astype(index)
        data = rng.standard_normal(indptr[-1]).astype(dtype)
        data[indptr[1000] : indptr[1040]] = np.inf
        data[rng.integers(0, data.size, 50)] = -0.0
        a = Csr(indptr, indices, data, (2100, 40))
        x = operand((40,), np.float64).astype(dtype)
        assert spmv_rows._is_uneven(indptr, 0, 2100)

        with np.errstate(invalid="ignore"):
            wanted = csr_to_scipy(a) @ x
        found = [cpu.spmv(a, x, threads=threads) for threads in (1, 2)]

        for y in found:
            np.testing.assert_array_equal(y, wanted)
            np.testing.assert_array_equal(np.signbit(y.real), np.signbit(wanted.real))

    def test_which_rows_are_uneven(self) -> None:
        even = np.arange(0, 6 * 3000 + 1, 6)
        few = even.copy()
        few[1000:] += 1  # one row is longer
        assert not spmv_rows._is_uneven(even, 0, 3000)
        assert not spmv_rows._is_uneven(few, 0, 3000)
        mixed = np.cumsum(np.random.default_rng(0).integers(0, 9, 3001))
        assert spmv_rows._is_uneven(mixed, 0, 3000)
        assert not spmv_rows._is_uneven(mixed, 0, 1000)  # not worth a look

    def test_scipy_bits(self) -> None:
        """Stored order and separate roundings are what SciPy's C loops do."""
        a = matrix((700, 500), 0.4)
        x = operand((500,), np.float64)

        assert cpu.spmv(a, x).tobytes() == (csr_to_scipy(a) @ x).tobytes()

    @pytest.mark.parametrize("longest", [2, 16, 17, 700])
    def test_rows_of_any_length(self, longest: int) -> None:
        """As long as each other or not; zeros of both signs, empty rows at the ends."""
        rng = np.random.default_rng(longest)
        for lengths in (
            rng.integers(0, longest + 1, 400), np.full(100, longest), np.arange(1) * 0,
            np.r_[0, 0, rng.integers(0, longest, 60), 0], np.arange(3 * longest) % 3,
        ):  # fmt: skip
            indptr = np.r_[0, np.cumsum(lengths)].astype(np.int32)
            indices = rng.integers(0, 50, indptr[-1]).astype(np.int32)
            data = rng.choice([0.0, -0.0, 1e-3, -7.0, np.inf], indptr[-1])
            a = Csr(indptr, indices, data, (lengths.size, 50))
            x = rng.choice([0.0, -0.0, 3.0, -1e9], 50)
            for threads in (1, 2):
                got = cpu.spmv(a, x, threads=threads)
                wanted = reference.spmv(a, x)
                np.testing.assert_array_equal(got, wanted)
                np.testing.assert_array_equal(np.signbit(got), np.signbit(wanted))

    def test_one_long_row(self) -> None:
        """A row with nearly all entries stays whole; the rest is shared out."""
        rng = np.random.default_rng(1)
        dense = np.zeros((50, 40_000))
        dense[17] = rng.standard_normal(40_000)
        dense[:, 3] = 1.0
        a = csr_from_dense(dense)
        x = operand((40_000,), np.float64)

        np.testing.assert_allclose(cpu.spmv(a, x, threads=2), dense @ x, rtol=1e-9)


class TestConcurrency:
    def test_calls_from_several_threads(self) -> None:
        """Parallel kernels called at once from Python threads neither abort nor mix."""
        a = matrix((900, 300), 0.5)
        blocks = [operand((300, 40), np.float64) * k for k in range(1, 9)]
        wanted = [cpu.spmm(a, block, threads=1) for block in blocks]

        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda block: cpu.spmm(a, block), blocks * 4))

        for k, out in enumerate(got):
            assert out.tobytes() == wanted[k % 8].tobytes()


class TestComplex:
    """On the host; a device says that it has no kernels for them."""

    @INDICES
    @SHAPES
    @pytest.mark.parametrize("conjugate", [False, True])
    def test_equals_reference(
        self, index: Any, shape: tuple[int, int], conjugate: bool
    ) -> None:
        """All four products, the transposed ones of the conjugate too."""
        real, imaginary = matrix(shape, index=index), matrix(shape, index=index)
        a = Csr(real.indptr, real.indices, real.data + 2j * imaginary.data, shape)
        x = operand((shape[1], 3), np.float64) * (1 + 2j)
        y = operand((shape[0], 3), np.float64) * (2 - 1j)
        how = {"conjugate": conjugate}

        for wanted, found in (
            (reference.spmv(a, x[:, 0].copy()), cpu.spmv(a, x[:, 0].copy())),
            (reference.spmm(a, x), cpu.spmm(a, x)),
            (
                reference.spmv_t(a, y[:, 0].copy(), **how),
                cpu.spmv_t(a, y[:, 0].copy(), **how),
            ),
            (reference.spmm_t(a, y, **how), cpu.spmm_t(a, y, **how)),
        ):
            close(found, wanted, np.complex128)

    def test_by_hand(self) -> None:
        """[[1j, 0], [2, 1 + 1j]]: the conjugate transpose of it times (1, 1j)."""
        a = Csr(
            np.array([0, 1, 3], np.int32),
            np.array([0, 0, 1], np.int32),
            np.array([1j, 2, 1 + 1j]),
            (2, 2),
        )

        for twin in (reference, cpu):
            found = twin.spmv_t(a, np.array([1, 1j]), conjugate=True)
            assert found.tolist() == [1j, 1 + 1j]

    def test_a_device_refuses(self, emulated: Any) -> None:
        """With the types that it has."""
        a = Csr(
            np.zeros(2, np.int32), np.zeros(0, np.int32), np.zeros(0, "c16"), (1, 1)
        )
        with pytest.raises(DTypeError, match="both must be float32 or both float64"):
            hosted(emulated).spmv(a, np.zeros(1, "c16"))
