from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from nnz_kernels.convert import csr_from_dense, csr_from_scipy, csr_to_scipy
from nnz_service.algebra.cg import CgSettings, ConjugateGradients, Done, Progress
from nnz_service.algebra.files import read_matrix
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidInputError, InvalidMatrixError


def poisson(n: int) -> Any:
    """Return the five-point Laplacian of an n x n grid, SPD."""
    line = scipy.sparse.diags_array([-1.0, 2, -1], offsets=[-1, 0, 1], shape=(n, n))
    unit = scipy.sparse.eye_array(n)
    return (scipy.sparse.kron(line, unit) + scipy.sparse.kron(unit, line)).tocsr()


def operator(a: Any, dtype: Any = np.float64) -> MatrixOperator:
    return MatrixOperator(csr_from_scipy(a.astype(dtype)))


def dense(rows: list[list[float]]) -> MatrixOperator:
    return MatrixOperator(csr_from_dense(np.array(rows, np.float64)), "reference")


def finish(solve: ConjugateGradients) -> Done:
    out = solve.step()
    assert isinstance(out, Done)
    return out


A = poisson(40)
B = np.random.default_rng(8).standard_normal(1600)


class TestConverged:
    @pytest.mark.parametrize("preconditioner", ["none", "jacobi"])
    @pytest.mark.parametrize("rtol", [1e-5, 1e-10])
    def test_poisson(self, preconditioner: str, rtol: float) -> None:
        """The answer fits the definition, and takes SciPy's number of iterations."""
        settings = CgSettings(rtol=rtol, preconditioner=preconditioner)

        done = finish(ConjugateGradients(operator(A), B, settings=settings))

        r = B - A @ done.x
        assert done.status == "converged"
        assert np.linalg.norm(r) <= rtol * np.linalg.norm(B)
        assert done.residual == pytest.approx(np.linalg.norm(r), rel=1e-6)
        assert done.relative_residual <= rtol
        count = []
        scipy.sparse.linalg.cg(A, B, rtol=rtol, callback=count.append)
        assert abs(done.iterations - len(count)) <= 2

    def test_by_hand(self) -> None:
        """Two unknowns take two iterations: the example of many textbooks."""
        done = finish(
            ConjugateGradients(
                dense([[4, 1], [1, 3]]),
                np.array([1.0, 2.0]),
                np.array([2.0, 1.0]),
                CgSettings(rtol=1e-12),
            )
        )

        assert (done.status, done.iterations) == ("converged", 2)
        np.testing.assert_allclose(done.x, [1 / 11, 7 / 11])

    def test_backward_errors(self) -> None:
        """Both measures against their formulas, in plain numpy."""
        done = finish(ConjugateGradients(operator(A), B))

        r, magnitude = np.abs(B - A @ done.x), abs(A)
        norm = magnitude.sum(axis=1).max()
        scale = norm * np.abs(done.x).max() + np.abs(B).max()
        assert done.backward_error == pytest.approx(r.max() / scale, rel=1e-6)
        rows = r / (magnitude @ np.abs(done.x) + np.abs(B))
        assert done.componentwise_backward_error == pytest.approx(rows.max(), rel=1e-6)

    def test_float32_matrix(self) -> None:
        """A float32 matrix is solved in float64, to tolerances below float32's."""
        done = finish(
            ConjugateGradients(
                operator(A, np.float32), B, settings=CgSettings(rtol=1e-11)
            )
        )

        assert done.status == "converged"
        assert np.linalg.norm(B - A @ done.x) <= 1e-11 * np.linalg.norm(B)

    def test_nothing_to_do(self) -> None:
        """b = 0, and an exact first iterate, take no iteration."""
        zero = finish(ConjugateGradients(operator(A), np.zeros(1600)))
        exact = finish(ConjugateGradients(operator(A), A @ B, B))

        assert (zero.status, zero.iterations, zero.residual) == ("converged", 0, 0)
        assert (exact.status, exact.iterations) == ("converged", 0)

    def test_no_unknowns(self) -> None:
        """A matrix of no rows is solved."""
        empty = MatrixOperator(csr_from_dense(np.zeros((0, 0))))

        assert finish(ConjugateGradients(empty, np.zeros(0))).status == "converged"

    def test_real_matrix(self, data_dir: Path) -> None:
        """Power network 1138_bus, condition about 1e7, with Jacobi."""
        file = data_dir / "mtx" / "spd" / "1138_bus.mtx"
        a = read_matrix(file, "text/x-matrix-market")
        b = csr_to_scipy(a) @ np.ones(1138)
        settings = CgSettings(rtol=1e-10, preconditioner="jacobi")

        done = finish(ConjugateGradients(MatrixOperator(a), b, settings=settings))

        assert done.status == "converged"
        assert np.linalg.norm(b - csr_to_scipy(a) @ done.x) <= 1e-10 * np.linalg.norm(b)
        np.testing.assert_allclose(done.x, 1, atol=1e-4)


class TestOtherEnds:
    def test_iteration_limit(self) -> None:
        """The limit holds, and the residual told is the true one."""
        done = finish(
            ConjugateGradients(operator(A), B, settings=CgSettings(maxiter=7))
        )

        assert (done.status, done.iterations) == ("iteration_limit", 7)
        assert done.residual == pytest.approx(np.linalg.norm(B - A @ done.x))

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([[1.0, 2], [2, 1]], "p'Ap"),
            ([[0.0, 0], [0, 1]], "p'Ap"),
            ([[1.0, 5], [-5, 1]], "not symmetric"),
        ],
    )
    def test_not_spd(self, rows: list[list[float]], message: str) -> None:
        """Indefinite, singular and unsymmetric matrices are told."""
        done = finish(ConjugateGradients(dense(rows), np.array([1.0, -1.0])))

        assert done.status == "not_spd"
        assert message in done.message

    @pytest.mark.parametrize("entry", [-2.0, 0.0])
    def test_diagonal(self, entry: float) -> None:
        """Jacobi needs a positive diagonal, as every SPD matrix has."""
        done = finish(
            ConjugateGradients(
                dense([[1.0, 0], [0, entry]]),
                np.ones(2),
                settings=CgSettings(preconditioner="jacobi"),
            )
        )

        assert done.status == "not_spd"
        assert "diagonal entry 1" in done.message

    def test_out_of_reach(self) -> None:
        """A target below rounding ends with a reason instead of running on."""
        done = finish(
            ConjugateGradients(operator(A), B, settings=CgSettings(rtol=1e-300))
        )

        assert done.status in ("breakdown", "iteration_limit")
        assert done.relative_residual < 1e-12

    def test_overflow(self) -> None:
        """Numbers beyond float64 are a breakdown, not an endless loop."""
        done = finish(
            ConjugateGradients(
                dense([[1e308, 0], [0, 1e308]]), np.array([1e200, 1e200])
            )
        )

        assert done.status == "breakdown"

    def test_cancelled(self) -> None:
        """What was reached is handed over."""
        solve = ConjugateGradients(operator(A), B)
        solve.step(iterations=5)

        done = solve.cancel()

        assert (done.status, done.iterations) == ("cancelled", 5)
        assert done.residual == pytest.approx(np.linalg.norm(B - A @ done.x))
        assert solve.step() is done


class TestSteps:
    def test_progress(self) -> None:
        """A budget of iterations is kept, and the residual falls."""
        solve = ConjugateGradients(operator(A), B)

        first, second = solve.step(iterations=10), solve.step(iterations=20)

        assert isinstance(first, Progress)
        assert isinstance(second, Progress)
        assert (first.iterations, second.iterations) == (10, 30)
        assert second.residual < first.residual
        assert first.target == pytest.approx(1e-5 * np.linalg.norm(B))

    def test_time(self) -> None:
        """A budget of seconds ends a step by the clock that was given."""
        ticks = iter(range(1000))
        solve = ConjugateGradients(operator(A), B, clock=lambda: float(next(ticks)))

        out = solve.step(seconds=3)

        assert isinstance(out, Progress)
        assert out.iterations == 3

    @pytest.mark.parametrize("preconditioner", ["none", "jacobi"])
    def test_restored_bit_for_bit(self, preconditioner: str) -> None:
        """A pause through `state`, as JSON scalars and arrays, changes no bit."""
        settings = CgSettings(rtol=1e-9, preconditioner=preconditioner)
        whole = finish(ConjugateGradients(operator(A), B, settings=settings))
        solve = ConjugateGradients(operator(A), B, settings=settings)

        while isinstance(solve.step(iterations=13), Progress):
            state = solve.state()
            frozen = {
                name: value.copy() if isinstance(value, np.ndarray) else value
                for name, value in state.items()
            }
            solve = ConjugateGradients.restore(operator(A), frozen)
        done = finish(solve)

        assert done.iterations == whole.iterations
        assert done.x.tobytes() == whole.x.tobytes()

    def test_result_is_plain(self) -> None:
        """Everything but x is a JSON type."""
        result = finish(ConjugateGradients(operator(A), B)).result()

        assert "x" not in result
        assert all(type(value) in (str, int, float) for value in result.values())


class TestRefusals:
    @pytest.mark.parametrize(
        ("b", "message"),
        [
            (np.zeros(3), r"b is float64 of shape \[3\], .* of shape \[1600\]"),
            (np.zeros((1600, 1)), r"shape \[1600, 1\]"),
            (np.full(1600, np.nan), r"b\[0\] is nan, but must be finite"),
            (np.zeros(1600, complex), "b is complex128"),
        ],
    )
    def test_right_hand_side(self, b: Any, message: str) -> None:
        """Shape, type and values."""
        with pytest.raises(InvalidInputError, match=message):
            ConjugateGradients(operator(A), b)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (CgSettings(rtol=-1), "rtol is -1"),
            (CgSettings(rtol=float("nan")), "rtol is nan"),
            (CgSettings(atol=float("inf")), "atol is inf"),
            (CgSettings(maxiter=0), "maxiter is 0"),
            (CgSettings(maxiter=True), "maxiter is True"),
            (CgSettings(preconditioner="ilu"), "preconditioner is 'ilu'"),
        ],
    )
    def test_settings(self, settings: CgSettings, message: str) -> None:
        """Each setting is named."""
        with pytest.raises(InvalidInputError, match=message):
            ConjugateGradients(operator(A), B, settings=settings)

    def test_matrix(self) -> None:
        """Square and finite."""
        with pytest.raises(InvalidMatrixError, match=r"shape \[1, 2\], .* square"):
            ConjugateGradients(dense([[1.0, 2]]), np.ones(1))
        with pytest.raises(InvalidMatrixError, match="NaN or an infinity"):
            ConjugateGradients(dense([[np.inf]]), np.ones(1))
