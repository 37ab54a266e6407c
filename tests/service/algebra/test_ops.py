from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnz_kernels.convert import csr_from_dense
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.algebra.ops import run_op
from nnz_service.errors import InvalidInputError, NotFoundError

DENSE = np.array([[0.0, 2, 0], [3, 4, -1]])


def vectors(**changes: Any) -> dict[str, Any]:
    given = {
        "u.indices": np.array([0, 1, 3], np.int32),
        "u.values": np.array([1.0, 6, -3]),
        "v.indices": np.array([5, 0], np.int32),
        "v.values": np.array([3.0, -10]),
    }
    return {**given, **changes}


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def matrix(backend: str) -> MatrixOperator:
    return MatrixOperator(csr_from_dense(DENSE), backend)


class TestProducts:
    def test_spmv_and_spmm(self, matrix: MatrixOperator) -> None:
        """A vector, a block, transposed or not."""
        x, block = np.array([1.0, 2, 3]), np.eye(3)

        assert run_op("spmv", {}, {"x": x}, matrix)["y"].tolist() == [4, 8]
        assert run_op("spmm", {}, {"x": block}, matrix)["y"].tolist() == DENSE.tolist()
        out = run_op("spmv", {"transpose": True}, {"x": np.ones(2)}, matrix)
        assert out["y"].tolist() == [3, 6, -1]

    def test_refusals(self, matrix: MatrixOperator) -> None:
        """What is missing or wrong is named."""
        x = np.ones(3)
        with pytest.raises(NotFoundError, match="no operation 'spgemm'; there are"):
            run_op("spgemm", {}, {}, matrix)
        with pytest.raises(InvalidInputError, match="needs the parameter 'matrix'"):
            run_op("spmv", {}, {"x": x})
        with pytest.raises(InvalidInputError, match=r"takes the inputs \['x'\]"):
            run_op("spmv", {}, {"y": x}, matrix)
        with pytest.raises(InvalidInputError, match="transpose is 'yes'"):
            run_op("spmv", {"transpose": "yes"}, {"x": x}, matrix)
        with pytest.raises(InvalidInputError, match=r"needs \[3\]"):
            run_op("spmv", {}, {"x": np.ones(2)}, matrix)


class TestVectors:
    def test_axpy(self, backend: str) -> None:
        """In the order of u, then what v alone has."""
        out = run_op("axpy", {"r": -2}, vectors(), backend=backend)

        assert out["w.indices"].tolist() == [0, 1, 3, 5]
        assert out["w.values"].tolist() == [21, 6, -3, -6]

    def test_policies(self, backend: str) -> None:
        """Zeros may be dropped, duplicates refused."""
        twice = {
            "v.indices": np.array([0, 0], np.int32),
            "v.values": np.array([4.0, -6]),
        }
        given = vectors(**twice)
        out = run_op("axpy", {"r": 0.5, "zeros": "drop_exact"}, given, backend=backend)
        assert out["w.indices"].tolist() == [1, 3]

        with pytest.raises(InvalidInputError, match=r"v\.indices\[1\] repeats"):
            run_op("axpy", {"r": 1, "duplicates": "error"}, given, backend=backend)

    def test_dot(self, backend: str) -> None:
        """One float64."""
        out = run_op("dot", {"size": 6}, vectors(), backend=backend)

        assert out["dot"].tolist() == [-10]
        assert out["dot"].dtype == np.float64

    def test_mixed_types(self, backend: str) -> None:
        """The wider type of each kind is used for both."""
        given = vectors(
            **{
                "v.indices": np.array([5, 0], np.int64),
                "u.values": np.array([1, 6, -3], np.float32),
            }
        )

        out = run_op("axpy", {"r": 1.0}, given, backend=backend)

        assert out["w.indices"].dtype == np.int64
        assert out["w.values"].dtype == np.float64

    @pytest.mark.parametrize(
        ("params", "changes", "message"),
        [
            ({}, {}, "parameter r is None, but must be a number"),
            ({"r": "2"}, {}, "parameter r is '2'"),
            ({"r": True}, {}, "parameter r is True"),
            ({"r": 1, "size": 5}, {}, r"v: indices\[0\] is 5, but must be from 0 to 4"),
            ({"r": 1, "size": 5.0}, {}, "size is 5.0"),
            ({"r": 1, "size": -1}, {}, "size is -1"),
            ({"r": 1, "zeros": "some"}, {}, "zeros is 'some'"),
            ({"r": 1, "duplicates": []}, {}, "duplicates is"),
            ({"r": 1}, {"u.values": np.ones(2)}, "u: values has 2 entries"),
            ({"r": 1}, {"u.values": np.ones(3, int)}, r"u\.values is int64"),
            ({"r": 1}, {"u.indices": np.ones(3)}, r"u\.indices is float64"),
            ({"r": 1}, {"u.indices": np.array([0, -1, 2])}, r"u: indices\[1\] is -1"),
            ({"r": 1}, {"u.values": np.ones((3, 1))}, r"shape \[3, 1\]"),
            ({"r": 1}, {"w": np.ones(3)}, "axpy takes the inputs"),
        ],
    )
    def test_refusals(
        self, backend: str, params: dict[str, Any], changes: Any, message: str
    ) -> None:
        """What is missing or wrong is named."""
        with pytest.raises(InvalidInputError, match=message):
            run_op("axpy", params, vectors(**changes), backend=backend)

    def test_empty(self, backend: str) -> None:
        """Nothing plus nothing is nothing, of size 0."""
        none = {
            f"{name}.{part}": np.zeros(0, kind)
            for name in "uv"
            for part, kind in (("indices", np.int32), ("values", np.float64))
        }

        out = run_op("axpy", {"r": 1}, none, backend=backend)

        assert out["w.indices"].size == 0
