from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

from nnz_kernels.convert import canonical, csr_from_dense, csr_from_scipy
from nnz_kernels.formats import Csr
from nnz_service.algebra.facts import describe, pattern_digest


def facts(dense: Any) -> dict[str, Any]:
    return describe(csr_from_scipy(scipy.sparse.csr_array(np.array(dense))))


class TestByHand:
    def test_everything(self) -> None:
        found = facts([[0.0, 2, 0, 0], [0, 0, 0, 0], [3, 4, 5, 0]])

        digest = found.pop("pattern")
        assert len(digest) == 32
        assert found == {
            "symmetry": "none",
            "pattern_symmetric": False,
            "row_nnz": {"min": 0, "mean": 4 / 3, "max": 3, "empty": 1},
            "bandwidth": {"lower": 2, "upper": 1},
            "zero_diagonal": 2,
            "stored_zeros": 0,
            "finite": True,
        }

    @pytest.mark.parametrize(
        ("dense", "symmetry"),
        [
            ([[1.0, 2], [2, 0]], "symmetric"),
            ([[0.0, 2], [-2, 0]], "skew-symmetric"),
            ([[1.0, 2], [-2, 0]], "none"),
            ([[1, 2 + 1j], [2 - 1j, 3]], "hermitian"),
            ([[1, 2 + 1j], [2 + 1j, 3]], "symmetric"),
            ([[1.0, 2], [0, 1]], "none"),
            ([[1.0, 2, 3], [2, 1, 3]], "none"),
            ([[0.0, 0], [0, 0]], "symmetric"),
            ([[np.nan]], "none"),
        ],
    )
    def test_symmetry(self, dense: Any, symmetry: str) -> None:
        assert facts(dense)["symmetry"] == symmetry

    def test_a_stored_zero_is_of_the_pattern_alone(self) -> None:
        parts = np.array([0.0, 4.0]), np.array([1, 0], np.int32), np.array([0, 1, 1, 2])
        a = canonical(Csr(parts[2].astype(np.int32), parts[1], parts[0], (3, 3)))

        found = describe(a)

        assert (found["symmetry"], found["pattern_symmetric"]) == ("none", False)
        zero = describe(Csr(a.indptr, a.indices, a.data * 0, a.shape))
        assert (zero["symmetry"], zero["pattern_symmetric"]) == ("symmetric", False)
        assert zero["stored_zeros"] == 2
        assert zero["zero_diagonal"] == 3

    @pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (3, 2)])
    def test_nothing_stored(self, shape: tuple[int, int]) -> None:
        found = describe(csr_from_scipy(scipy.sparse.csr_array(shape)))

        assert found["row_nnz"] == {
            "min": 0, "mean": 0.0, "max": 0, "empty": shape[0],
        }  # fmt: skip
        assert found["bandwidth"] == {"lower": 0, "upper": 0}
        assert found["zero_diagonal"] == min(shape)


def test_against_scipy_at_odd_sizes() -> None:
    rng = np.random.default_rng(3)
    matrix = scipy.sparse.random_array((37, 53), density=0.05, rng=rng, format="coo")

    found = describe(csr_from_scipy(matrix))

    below, above = scipy.sparse.linalg.spbandwidth(matrix.tocsr())
    assert found["bandwidth"] == {"lower": below, "upper": above}
    assert found["zero_diagonal"] == 37 - np.count_nonzero(matrix.diagonal())
    lengths = np.bincount(matrix.coords[0], minlength=37)
    assert found["row_nnz"]["max"] == lengths.max()
    assert found["row_nnz"]["empty"] == np.count_nonzero(lengths == 0)


def test_digest_is_of_the_pattern() -> None:
    a = csr_from_dense(np.array([[1.0, 0], [2, 3]]))

    same = Csr(a.indptr, a.indices, a.data * 7, a.shape)
    wider = Csr(a.indptr, a.indices, a.data, (2, 3))

    assert pattern_digest(a) == pattern_digest(same)
    assert pattern_digest(a) != pattern_digest(wider)
    assert pattern_digest(a) != pattern_digest(csr_from_dense(np.eye(2)))


def test_any_number_of_columns() -> None:
    """Nothing takes memory for each of them."""
    indices = np.array([5, 2**40], np.int64)
    a = Csr(np.array([0, 1, 2]), indices, np.ones(2), (2, 2**53))

    found = describe(a)

    assert found["symmetry"] == "none"
    assert found["bandwidth"] == {"lower": 0, "upper": 2**40 - 1}
    assert found["zero_diagonal"] == 2
