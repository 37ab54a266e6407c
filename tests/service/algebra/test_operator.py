from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from nnz_kernels.convert import csr_from_dense, csr_from_scipy
from nnz_kernels.formats import Csr
from nnz_service.algebra.files import write_resident
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidInputError

RNG = np.random.default_rng(4)
DENSE = RNG.standard_normal((30, 20)) * (RNG.random((30, 20)) < 0.3)
X, Y = RNG.standard_normal((20, 5)), RNG.standard_normal((30, 5))


@pytest.fixture(params=["reference", "cpu"])
def operator(request: pytest.FixtureRequest) -> MatrixOperator:
    return MatrixOperator(csr_from_dense(DENSE), request.param)


class TestProducts:
    def test_all_four(self, operator: MatrixOperator) -> None:
        """Vectors and blocks, straight and transposed."""
        np.testing.assert_allclose(operator.spmv(X[:, 0]), DENSE @ X[:, 0])
        np.testing.assert_allclose(operator.spmm(X), DENSE @ X)
        np.testing.assert_allclose(
            operator.spmv(Y[:, 0], transpose=True), DENSE.T @ Y[:, 0]
        )
        np.testing.assert_allclose(operator.spmm(Y, transpose=True), DENSE.T @ Y)

    def test_types_are_converted(self, operator: MatrixOperator) -> None:
        """The matrix decides the type."""
        out = operator.spmv(np.arange(20))

        assert out.dtype == np.float64
        np.testing.assert_allclose(out, DENSE @ np.arange(20))

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.zeros(19), r"x has shape \[19\], but this matrix needs \[20\]"),
            (np.zeros((20, 1)), r"x has shape \[20, 1\]"),
            (np.zeros(20, complex), "x has type complex128, but must be float32"),
            (np.array(["a"] * 20), "x has type"),
        ],
    )
    def test_refusals(self, operator: MatrixOperator, x: Any, message: str) -> None:
        """Shapes and types that do not fit are told."""
        with pytest.raises(InvalidInputError, match=message):
            operator.spmv(x)

    def test_results_that_no_memory_holds(self) -> None:
        """A few bytes may not ask for terabytes."""
        wide = MatrixOperator(
            Csr(np.array([0, 1]), np.array([1 << 40]), np.ones(1), (1, 1 << 41))
        )
        narrow = MatrixOperator(csr_from_dense(np.zeros((1000, 0))))

        with pytest.raises(InvalidInputError, match="result would take"):
            wide.spmv(np.ones(1), transpose=True)
        with pytest.raises(InvalidInputError, match="result would take"):
            narrow.spmm(np.zeros((0, 10**9)))


class TestColumns:
    def test_company_does_not_matter(self) -> None:
        """A column alone has the bits of the column among others."""
        operator = MatrixOperator(csr_from_dense(DENSE))
        together = operator.spmm(X)

        for k in range(5):
            alone = operator.spmv(X[:, k].copy())
            assert alone.tobytes() == together[:, k].tobytes()

    def test_complex(self) -> None:
        """A matrix of complex numbers takes those, and real ones as such."""
        dense = DENSE + 2j * DENSE
        operator = MatrixOperator(csr_from_scipy(csr_array(dense)), "reference")

        np.testing.assert_allclose(operator.spmv(X[:, 0] * 1j), dense @ X[:, 0] * 1j)
        np.testing.assert_allclose(operator.spmm(X), dense @ X)
        with pytest.raises(InvalidInputError, match="integer or complex128"):
            operator.spmv(np.zeros(20, np.complex64))

    def test_no_columns(self, operator: MatrixOperator) -> None:
        assert operator.spmm(np.zeros((20, 0))).shape == (30, 0)


class TestResident:
    def test_load_and_describe(self, tmp_path: Path) -> None:
        """From a file, with what a client wants to know."""
        a = csr_from_dense(DENSE.astype(np.float32))
        write_resident(a, tmp_path / "m")

        operator = MatrixOperator.load(tmp_path / "m")

        assert operator.description() == {
            "shape": [30, 20],
            "nnz": int(np.count_nonzero(DENSE)),
            "dtype": "float32",
            "index_dtype": "int32",
            "bytes": a.nbytes,
        }
        assert operator.nbytes == a.nbytes
