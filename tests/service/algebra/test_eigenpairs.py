"""Eigenpairs against LAPACK and ARPACK."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import eigsh

from nnz_kernels.backends import Backend
from nnz_kernels.convert import csr_from_scipy
from nnz_service.algebra import eigenpairs
from nnz_service.algebra.eigenpairs import Eigenpairs, Which
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import ImpossibleError, InvalidMatrixError


def symmetric(n: int, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    half = scipy.sparse.random_array((n, n), density=4 / n, rng=rng, format="csr")
    return scipy.sparse.csr_array(half + half.T)


def operator(matrix: Any) -> MatrixOperator:
    return MatrixOperator(csr_from_scipy(scipy.sparse.csr_array(matrix)), Backend.CPU)


def ended(course: Eigenpairs) -> tuple[dict[str, Any], dict[str, Any]]:
    while not course.round():
        pass
    return course.result()


def check(matrix: Any, arrays: dict[str, Any], tol: float) -> None:
    """Residuals are what they are said to be, and vectors are orthonormal."""
    values, vectors = arrays["eigenvalues"], arrays["eigenvectors"]
    residuals = np.linalg.norm(matrix @ vectors - vectors * values, axis=0)
    size = abs(matrix).sum(axis=1).max()
    np.testing.assert_allclose(residuals, arrays["residuals"], atol=1e-13 * size)
    assert residuals.max() <= tol * size
    eye = np.eye(values.size)
    np.testing.assert_allclose(vectors.T @ vectors, eye, atol=1e-12)


NAMES: dict[Which, str] = {"largest": "LA", "smallest": "SA", "magnitude": "LM"}


@pytest.mark.parametrize("which", NAMES)
@pytest.mark.parametrize("k", [1, 6])
def test_arpack(which: Which, k: int) -> None:
    a = symmetric(301)

    facts, arrays = ended(Eigenpairs(operator(a), k, which, 1e-10))

    wanted = eigsh(a, k, which=NAMES[which], tol=1e-12, v0=np.ones(301))[0]
    assert facts["status"] == "converged"
    assert (facts["converged"], facts["of"]) == (k, k)
    found = np.sort(arrays["eigenvalues"])
    np.testing.assert_allclose(found, np.sort(wanted), atol=1e-9)
    check(a, arrays, 1e-10)
    key = {"largest": -arrays["eigenvalues"], "smallest": arrays["eigenvalues"]}
    assert (np.diff(key.get(which, -abs(arrays["eigenvalues"]))) >= 0).all()


@pytest.mark.parametrize("n", [1, 2, 5, 25])
def test_all_pairs_of_small_matrices(n: int) -> None:
    a = symmetric(n) if n > 4 else np.diag(np.arange(1.0, n + 1))

    facts, arrays = ended(Eigenpairs(operator(a), n, "smallest", 1e-12))

    dense = np.asarray(operator(a).spmm(np.eye(n)))
    assert facts["status"] == "converged"
    np.testing.assert_allclose(
        arrays["eigenvalues"], np.linalg.eigvalsh(dense), atol=1e-12
    )
    check(dense, arrays, 1e-12)


@pytest.mark.parametrize("value", [0.0, 3.0, 1e200, 1e-200])
def test_multiples_of_the_identity(value: float) -> None:
    """One product finds an invariant space; others are begun until it is full."""
    facts, arrays = ended(Eigenpairs(operator(value * np.eye(60)), 3))

    assert facts["status"] == "converged"
    np.testing.assert_allclose(arrays["eigenvalues"], value)
    vectors = arrays["eigenvectors"]
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("which", ["largest", "smallest"])
@pytest.mark.parametrize("k", [3, 5])
def test_eigenvalues_that_occur_several_times(which: Which, k: int) -> None:
    """A grid has nearly all of them twice; blocks that are equal, four times."""
    path = scipy.sparse.diags_array([-1.0, 2, -1], offsets=[-1, 0, 1], shape=(15, 15))
    grid = scipy.sparse.kron(path, np.eye(15)) + scipy.sparse.kron(np.eye(15), path)
    for a in (grid, scipy.sparse.block_diag([path * 2] * 4)):
        facts, arrays = ended(Eigenpairs(operator(a), k, which))

        wanted = np.linalg.eigvalsh(a.toarray())
        wanted = wanted[:k] if which == "smallest" else wanted[::-1][:k]
        assert facts["status"] == "converged"
        np.testing.assert_allclose(arrays["eigenvalues"], wanted, atol=1e-6)
        check(a, arrays, 1e-8)


def test_limit() -> None:
    """The last pairs come with their residuals."""
    a = symmetric(301)

    facts, arrays = ended(Eigenpairs(operator(a), 4, "smallest", 1e-12, 1))

    assert facts["status"] == "iteration_limit"
    assert facts["iterations"] == eigenpairs.basis_size(301, 4)
    check(a, arrays, 1)


def test_a_restart_after_each_round_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(eigenpairs, "_BLOCK", 20_000)
    a = operator(symmetric(201))
    facts, arrays = ended(Eigenpairs(a, 3, tol=1e-10))
    course = Eigenpairs(a, 3, tol=1e-10)

    while not course.round():
        course = Eigenpairs(a, 3, tol=1e-10, state=course.state())

    again, found = course.result()
    assert again == facts
    assert facts["iterations"] > eigenpairs.basis_size(201, 3)
    assert {k: v.tobytes() for k, v in found.items()} == {
        k: v.tobytes() for k, v in arrays.items()
    }


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidMatrixError, match="mirror image differ by 2"):
        Eigenpairs(operator([[1.0, 2], [0, 1]]), 1)
    with pytest.raises(ImpossibleError, match="k is 3, but must be from 1 to 2"):
        Eigenpairs(operator(np.eye(2)), 3)
    monkeypatch.setattr(eigenpairs, "MAX_BASIS", 100)
    with pytest.raises(ImpossibleError, match="take 1248 bytes; the limit is 100"):
        Eigenpairs(operator(np.eye(10 + 2)), 1)
