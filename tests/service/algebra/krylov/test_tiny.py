"""Numbers whose squares underflow, or overflow: what is called converged is so."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from service.algebra.krylov.systems import SUITED, dense, only, operator, right, solved

from nnz_service.algebra.krylov import Done, Progress, Solve
from nnz_service.algebra.krylov.vectors import norm
from nnz_service.solving import METHODS, SolveSettings

#: With b = (1, 2) the solution is (1/5, 3/5).
ROWS = np.array([[2.0, 1], [1, 3]])
TINY = 2.0**-700


@pytest.mark.parametrize("method", METHODS)
class TestRightHandSide:
    @pytest.mark.parametrize("size", [1e-100, 1e-140, 1e-200, 1e-300])
    def test_is_solved(self, method: str, size: float) -> None:
        b = np.array([size, 2 * size])

        done = solved(dense(ROWS), b, method=method, rtol=1e-10)

        assert done.status == "converged"
        assert only(done).iterations > 0
        assert only(done).relative_residual <= 1e-10
        np.testing.assert_allclose(done.x, [size / 5, 3 * size / 5], rtol=1e-9)

    def test_has_the_bits_of_the_same_system_in_other_units(self, method: str) -> None:
        a = SUITED[method]
        b, x0 = right(a), np.ones(a.shape[1])

        plain = solved(operator(a), b, x0, method=method, rtol=1e-9)
        tiny = solved(operator(a), b * TINY, x0 * TINY, method=method, rtol=1e-9)

        assert only(plain).iterations == only(tiny).iterations
        assert tiny.x.tolist() == (plain.x * TINY).tolist()
        assert only(plain).residual * TINY == only(tiny).residual

    @pytest.mark.parametrize("size", [1e-320, 5e-324])
    def test_is_not_called_solved_where_the_solution_underflows(
        self, method: str, size: float
    ) -> None:
        done = solved(dense(ROWS), [size, 2 * size], method=method, rtol=1e-10)

        assert done.status == "numerical_error"
        assert only(done).relative_residual > 1e-10
        assert "underflows" in only(done).message

    def test_beside_a_tolerance_that_it_meets(self, method: str) -> None:
        done = solved(dense(ROWS), [1e-200, 2e-200], method=method, atol=1e-100)

        assert (done.status, only(done).iterations) == ("converged", 0)

    def test_with_a_first_iterate_of_ordinary_size(self, method: str) -> None:
        done = solved(dense(ROWS), [1e-200, 2e-200], np.ones(2), method=method)

        small = only(done).relative_residual <= 1e-5
        assert (done.status == "converged") == small

    def test_goes_on_bit_for_bit(self, method: str) -> None:
        a = operator(SUITED[method])
        b = right(SUITED[method]) * TINY
        settings = SolveSettings(method=method, rtol=1e-9)
        whole = Solve(a, b, settings=settings).step()
        solve = Solve(a, b, settings=settings)

        out: Progress | Done = solve.progress()
        while isinstance(out, Progress):
            out = solve.step(iterations=3)
            if isinstance(out, Progress) and out.residual is not None:
                assert out.residual < 1e-200
            saved = {name: np.array(value) for name, value in solve.state().items()}
            solve = Solve.restore(a, saved)

        assert isinstance(whole, Done)
        assert out.x.tolist() == whole.x.tolist()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1e-200, 1e-160, 1e160, 1e200])
def test_a_matrix_of_extreme_size(method: str, size: float) -> None:
    """Solved or not, the status says which."""
    done = solved(dense(ROWS * size), [1.0, 2.0], method=method, rtol=1e-8)

    residual = only(done).relative_residual
    assert (done.status == "converged") == (residual <= 1e-8)


def test_norm() -> None:
    """It underflows nowhere, and is what it was where no square does."""
    assert norm(np.array([3e-200, 4e-200])) == pytest.approx(5e-200)
    assert norm(np.array([5e-324])) == 5e-324
    assert norm(np.zeros(3)) == 0
    x = np.random.default_rng(1).standard_normal(100)
    assert norm(x) == float(np.sqrt(np.einsum("i,i->", x, x)))


@pytest.mark.parametrize("size", [1e-100, 1e100])
@pytest.mark.parametrize("method", ["cg", "minres", "gmres", "bicgstab", "lsqr"])
def test_entries_of_another_size_than_the_right_hand_side(
    method: str, size: float
) -> None:
    a = scipy.sparse.diags_array(size * np.arange(1.0, 20)).tocsr()

    found = solved(operator(a), np.ones(19), method=method, rtol=1e-9)

    assert only(found).status == "converged"
    np.testing.assert_allclose(found.x, 1 / (size * np.arange(1.0, 20)), rtol=1e-6)
