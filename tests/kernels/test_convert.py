from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

from nnz_kernels import convert
from nnz_kernels.errors import DTypeError, ShapeError, StructureError
from nnz_kernels.formats import SparseVector

DENSE = np.array([[0.0, 2, 0, 0], [0, 0, 0, 0], [3, 4, 0, -1]])


class TestScipy:
    @pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"])
    def test_every_format(self, kind: str) -> None:
        """Whatever format comes in, the same matrix comes out."""
        a = convert.csr_from_scipy(scipy.sparse.coo_array(DENSE).asformat(kind))

        a.check()
        assert a.indices.dtype == np.int32
        np.testing.assert_array_equal(convert.csr_to_dense(a), DENSE)

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("f4", "f4"), ("f8", "f8"), ("i4", "f8"), ("u1", "f8"), ("?", "f8"),
            ("c8", "c16"), ("c16", "c16"),
        ],
    )  # fmt: skip
    def test_types(self, given: str, kept: str) -> None:
        """Floats stay; integers become float64, complex numbers complex128."""
        a = convert.csr_from_scipy(scipy.sparse.csr_array((DENSE != 0).astype(given)))

        assert a.data.dtype == np.dtype(kept)

    @pytest.mark.parametrize("given", [np.clongdouble, np.longdouble])
    def test_types_refused(self, given: Any) -> None:
        """What would lose digits or parts is refused."""
        with pytest.raises(DTypeError, match="must be float32, float64"):
            convert.csr_from_scipy(scipy.sparse.csr_array(DENSE.astype(given)))

    def test_faulty_structure(self) -> None:
        """An index outside is found before SciPy's code can follow it."""
        a = scipy.sparse.csr_array(DENSE)
        a.indices[1] = 77

        with pytest.raises(StructureError, match=r"indices\[1\] is 77"):
            convert.csr_from_scipy(a)

    def test_back(self) -> None:
        """SciPy gets the very arrays."""
        a = convert.csr_from_dense(DENSE)

        back = convert.csr_to_scipy(a)

        np.testing.assert_array_equal(back.toarray(), DENSE)
        assert np.shares_memory(back.data, a.data)

    def test_wide_index(self) -> None:
        """A dimension past 2^31 needs 64-bit indices."""
        wide = scipy.sparse.coo_array(
            (np.ones(2), (np.array([0, 1]), np.array([5, 2**40]))), shape=(2, 2**41)
        )

        a = convert.csr_from_scipy(wide)

        a.check()
        assert a.indices.dtype == a.indptr.dtype == np.int64

    def test_rows_as_vectors(self) -> None:
        """The rows of a matrix are many sparse vectors."""
        rows = convert.ragged_from_scipy(scipy.sparse.csr_array(DENSE))

        rows.check()
        assert (rows.count, rows.size) == (3, 4)


class TestDense:
    def test_explicit(self) -> None:
        """Zeros are not stored, a NaN is; the type stays."""
        dense = np.array([[0, np.nan], [-0.0, 1]], np.float32)

        a = convert.csr_from_dense(dense)

        assert a.indptr.tolist() == [0, 1, 2]
        assert a.data.dtype == np.float32
        np.testing.assert_array_equal(convert.csr_to_dense(a), np.abs(dense))

    def test_axes(self) -> None:
        """A vector is no matrix, and a matrix no vector."""
        with pytest.raises(ShapeError, match="1 axes"):
            convert.csr_from_dense(np.zeros(3))
        with pytest.raises(ShapeError, match="2 axes"):
            convert.sparse_vector_from_dense(np.zeros((3, 1)))

    def test_transposed(self) -> None:
        """Rows become columns, sorted."""
        t = convert.csr_transposed(convert.csr_from_dense(DENSE))

        t.check()
        np.testing.assert_array_equal(convert.csr_to_dense(t), DENSE.T)


class TestBlocks:
    def test_by_hand(self) -> None:
        """Rows 0 and 1 share columns; the third row's block is padded."""
        b = convert.block_csr_from_dense(DENSE, 2)

        b.check()
        assert b.indptr.tolist() == [0, 1, 4]
        assert b.indices.tolist() == [1, 0, 1, 3]
        assert b.data.tolist() == [[2, 0], [3, 0], [4, 0], [-1, 0]]

    @pytest.mark.parametrize("block", [1, 2, 4, 8, 16])
    @pytest.mark.parametrize("shape", [(0, 3), (1, 1), (16, 5), (33, 20), (7, 0)])
    def test_round_trip(self, block: int, shape: tuple[int, int]) -> None:
        """Every block size gives the matrix back, padded or not."""
        rng = np.random.default_rng(2)
        dense = rng.standard_normal(shape) * (rng.random(shape) < 0.3)

        b = convert.block_csr_from_dense(dense, block)

        b.check()
        np.testing.assert_array_equal(convert.block_csr_to_dense(b), dense)

    def test_duplicates_are_summed(self) -> None:
        """An entry stored twice is one entry of a block."""
        a = scipy.sparse.csr_array(
            (np.array([1.0, 2.0]), np.array([1, 1]), np.array([0, 2])), shape=(1, 2)
        )

        b = convert.block_csr_from_csr(convert.csr_from_scipy(a), 2)

        assert b.data.tolist() == [[3, 0]]

    def test_unknown_block(self) -> None:
        """Only the sizes that kernels know."""
        with pytest.raises(ShapeError, match="block is 3"):
            convert.block_csr_from_dense(DENSE, 3)


class TestVectors:
    def test_round_trip(self) -> None:
        """A dense vector and back."""
        u = convert.sparse_vector_from_dense(DENSE[2])

        u.check()
        assert u.indices.tolist() == [0, 1, 3]
        np.testing.assert_array_equal(convert.sparse_vector_to_dense(u), DENSE[2])

    def test_duplicates_are_summed(self) -> None:
        """What was stored twice counts twice."""
        u = SparseVector(np.array([1, 1], np.int32), np.array([2.0, 3.0]), 2)

        assert convert.sparse_vector_to_dense(u).tolist() == [0, 5]
