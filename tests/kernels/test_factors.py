from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

from nnz_kernels.backends import Backend, load_factors
from nnz_kernels.convert import csr_from_dense, csr_from_scipy
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.formats import Csr
from nnz_kernels.hosted import hosted


@pytest.fixture(params=["reference", "cpu", "cuda-emulated"])
def ops(request: pytest.FixtureRequest) -> Any:
    if request.param == "cuda-emulated":
        return hosted(request.getfixturevalue("emulated"))
    return load_factors(Backend(request.param))


def matrix(rows: list[list[float]]) -> Csr[Any]:
    return csr_from_dense(np.array(rows, np.float64))


def scattered(n: int, seed: int, index: Any = np.int32) -> Csr[Any]:
    """Return a diagonally dominant matrix of random pattern."""
    a = scipy.sparse.random_array((n, n), density=4 / n, rng=seed)
    a = (a + a.T + scipy.sparse.diags_array(np.full(n, 6.0))).tocsr()
    a.sort_indices()
    found = csr_from_scipy(a)
    return Csr(found.indptr.astype(index), found.indices.astype(index), found.data,
               found.shape)  # fmt: skip


def triangle(a: Csr[Any], k: int, *, upper: bool = False) -> Csr[Any]:
    full = scipy.sparse.csr_array((a.data, a.indices, a.indptr), shape=a.shape)
    part = scipy.sparse.triu(full, k) if upper else scipy.sparse.tril(full, k)
    part = part.tocsr()
    part.sort_indices()
    return csr_from_scipy(part)


class TestIlu0:
    def test_by_hand(self, ops: Any) -> None:
        """A full 3 x 3 matrix has its LU factors."""
        data, failed = ops.ilu0(matrix([[2, 1, 1], [4, 3, 3], [8, 7, 9]]))

        assert failed == -1
        assert data.reshape(3, 3).tolist() == [[2, 1, 1], [2, 1, 1], [4, 3, 2]]

    def test_fill_is_dropped(self, ops: Any) -> None:
        """An arrow would fill up; entries outside its pattern do not come to be."""
        data, failed = ops.ilu0(matrix([[2, 1, 1], [2, 4, 0], [2, 0, 4]]))

        assert failed == -1
        assert data.tolist() == [2, 1, 1, 1, 3, 1, 3]

    def test_zero_pivot(self, ops: Any) -> None:
        assert ops.ilu0(matrix([[1, 1], [1, 1]]))[1] == 1

    @pytest.mark.parametrize("index", [np.int32, np.int64])
    def test_product_on_the_pattern(self, ops: Any, index: Any) -> None:
        """L U equals A wherever A has an entry: what defines it."""
        a = scattered(61, 3, index)
        data, failed = ops.ilu0(a)

        assert failed == -1
        factors = scipy.sparse.csr_array((data, a.indices, a.indptr)).toarray()
        found = (np.tril(factors, -1) + np.eye(61)) @ np.triu(factors)
        dense = scipy.sparse.csr_array((a.data, a.indices, a.indptr)).toarray()
        np.testing.assert_allclose(found[dense != 0], dense[dense != 0], rtol=1e-13)


class TestIc0:
    def test_by_hand(self, ops: Any) -> None:
        data, failed = ops.ic0(matrix([[4, 0, 0], [2, 5, 0], [2, 3, 6]]))

        assert failed == -1
        assert data.tolist() == [2, 1, 2, 1, 1, 2]

    @pytest.mark.parametrize("rows", [[[-1.0, 0], [1, 1]], [[1.0, 0], [2, 4]]])
    def test_no_positive_pivot(self, ops: Any, rows: list[list[float]]) -> None:
        assert ops.ic0(matrix(rows))[1] in (0, 1)

    def test_product_on_the_pattern(self, ops: Any) -> None:
        lower = triangle(scattered(57, 5), 0)
        data, failed = ops.ic0(lower)

        assert failed == -1
        factor = scipy.sparse.csr_array((data, lower.indices, lower.indptr)).toarray()
        dense = scipy.sparse.csr_array((lower.data, lower.indices, lower.indptr))
        kept = dense.toarray() != 0
        np.testing.assert_allclose(
            (factor @ factor.T)[kept], dense.toarray()[kept], rtol=1e-13
        )


class TestTriangles:
    @pytest.mark.parametrize("upper", [False, True])
    @pytest.mark.parametrize("width", [1, 3, 8])
    def test_against_numpy(self, ops: Any, upper: bool, width: int) -> None:
        a = scattered(45, 7)
        strict = triangle(a, 1 if upper else -1, upper=upper)
        diagonal = np.linspace(1, 2, 45)
        b = np.random.default_rng(1).standard_normal((45, width))

        x = ops.solve_triangle(strict, diagonal, b, upper=upper)

        dense = scipy.sparse.csr_array(
            (strict.data, strict.indices, strict.indptr), shape=(45, 45)
        ).toarray() + np.diag(diagonal)
        np.testing.assert_allclose(x, np.linalg.solve(dense, b), rtol=1e-10)
        alone = ops.solve_triangle(strict, diagonal, b[:, :1].copy(), upper=upper)
        assert x[:, :1].tobytes() == alone.tobytes()

    def test_refusals(self, ops: Any) -> None:
        square = matrix([[1, 0], [0, 1]])
        with pytest.raises(ShapeError, match="square"):
            ops.ilu0(matrix([[1, 2, 3], [1, 2, 3]]))
        with pytest.raises(DTypeError, match="float64"):
            ops.ic0(csr_from_dense(np.eye(2, dtype=np.float32)))
        with pytest.raises(ShapeError, match=r"\(2, k\)"):
            ops.solve_triangle(square, np.ones(2), np.ones((3, 1)), upper=False)
        with pytest.raises(DTypeError, match="float32"):
            ops.solve_triangle(
                square, np.ones(2), np.ones((2, 1), np.float32), upper=False
            )
