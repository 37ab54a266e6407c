"""Every status, on matrices that deserve it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from service.algebra.krylov.systems import (
    SUITED,
    convection,
    dense,
    indefinite,
    only,
    operator,
    poisson,
    right,
    solved,
)

from nnz_service.algebra.krylov import Done, Progress, Solve
from nnz_service.errors import (
    ImpossibleError,
    InvalidInputError,
    InvalidMatrixError,
    MalformedError,
    ServiceError,
)
from nnz_service.solving import METHODS, WIDTH, SolveSettings

ITERATIVE = [method for method in METHODS if method != "direct"]


@pytest.mark.parametrize("method", ITERATIVE)
class TestLimits:
    def test_iterations(self, method: str) -> None:
        """The limit holds, and the residual told is the true one."""
        a = SUITED[method]
        b = right(a)

        done = solved(operator(a), b, method=method, maxiter=4, rtol=1e-9)

        assert (done.status, only(done).iterations) == ("iteration_limit", 4)
        r = np.linalg.norm(b - a @ done.x)
        assert only(done).residual == pytest.approx(r)
        assert r < np.linalg.norm(b)

    def test_time(self, method: str) -> None:
        """Computing is counted over all slices, by the clock that was given."""
        ticks = iter(range(10_000))
        a = SUITED[method]
        solve = Solve(
            operator(a),
            right(a),
            settings=SolveSettings(method=method, rtol=1e-9, time_limit=5),
            clock=lambda: float(next(ticks)),
        )

        out: Progress | Done = solve.progress()
        while isinstance(out, Progress):
            out = solve.step(iterations=1)

        assert out.status == "time_limit"
        assert only(out).iterations == 5
        assert solve.progress().residual == only(out).residual

    def test_out_of_reach(self, method: str) -> None:
        """A target below rounding ends with a reason instead of running on."""
        a = SUITED[method]

        done = solved(operator(a), right(a), method=method, rtol=1e-300, maxiter=2000)

        assert done.status in ("breakdown", "iteration_limit", "singular")
        assert only(done).relative_residual < 1e-11

    def test_cancelled(self, method: str) -> None:
        """What was reached is handed over."""
        a = SUITED[method]
        b = right(a)
        solve = Solve(operator(a), b, settings=SolveSettings(method=method, rtol=1e-9))
        solve.step(iterations=5)

        done = solve.cancel()

        assert (done.status, only(done).iterations) == ("cancelled", 5)
        assert only(done).residual == pytest.approx(np.linalg.norm(b - a @ done.x))
        assert isinstance(solve.step(), Done)

    def test_overflow(self, method: str) -> None:
        """Numbers beyond float64 end it; the answer and the report stay finite."""
        done = solved(dense([[1e308, 0], [0, 1e308]]), [1e200, 1e200], method=method)

        assert done.status == "numerical_error"
        assert np.isfinite(done.x).all()
        for value in only(done).result().values():
            assert value is None or isinstance(value, str) or math.isfinite(value)


class TestNotSpd:
    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([[1.0, 2], [2, 1]], "p'Ap"),
            ([[0.0, 0], [0, 1]], "p'Ap"),
            ([[1.0, 5], [-5, 1]], "not symmetric"),
        ],
    )
    def test_cg(self, rows: list[list[float]], message: str) -> None:
        """Indefinite, singular and unsymmetric matrices are told."""
        done = solved(dense(rows), [1.0, -1.0])

        assert done.status == "not_spd"
        assert message in only(done).message

    @pytest.mark.parametrize("method", ["cg", "minres"])
    @pytest.mark.parametrize("preconditioner", ["jacobi", "ic0", "chebyshev"])
    @pytest.mark.parametrize("entry", [-2.0, 0.0])
    def test_diagonal(self, method: str, preconditioner: str, entry: float) -> None:
        """These need a positive diagonal, as every SPD matrix has."""
        done = solved(
            dense([[1.0, 0], [0, entry]]),
            [1.0, 1.0],
            method=method,
            preconditioner=preconditioner,
        )

        assert done.status == "not_spd"
        assert "diagonal entry 1" in only(done).message

    def test_minres_needs_symmetry(self) -> None:
        done = solved(dense([[1, 5], [-5, 1]]), [1, 1], method="minres")

        assert done.status == "breakdown"
        assert "not symmetric" in only(done).message


class TestBreakdown:
    def test_bicgstab_by_hand(self) -> None:
        """Skew-symmetric: A r is orthogonal to r, whatever shadow is taken."""
        done = solved(dense([[0, 1], [-1, 0]]), [1, 0], method="bicgstab")

        assert (done.status, only(done).iterations) == ("breakdown", 1)
        assert "orthogonal" in only(done).message
        assert done.x.tolist() == [0, 0]

    def test_bicgstab_without_a_second_step(self) -> None:
        """r = (1, 0), v = (1, -1), s = (0, 1), A s = (1, 0): omega is 0."""
        done = solved(dense([[1, 1], [-1, 0]]), [1, 0], method="bicgstab")

        assert (done.status, only(done).iterations) == ("breakdown", 1)
        assert "length 0" in only(done).message
        assert done.x.tolist() == [1, 0]

    def test_divergence_is_not_handed_over(self) -> None:
        """Where BiCGSTAB runs away its answer is not worse than its beginning."""
        a = indefinite(40)

        done = solved(
            operator(a), right(a), method="bicgstab", preconditioner="ilu0",
            maxiter=300, rtol=1e-14,
        )  # fmt: skip

        relative = only(done).relative_residual
        assert relative is not None
        assert relative < 1e4

    @pytest.mark.parametrize("method", ["bicgstab", "gmres"])
    def test_zero_on_the_diagonal(self, method: str) -> None:
        done = solved(
            dense([[1, 0], [1, 0]]), [1, 1], method=method, preconditioner="jacobi"
        )

        assert done.status == "breakdown"
        assert "diagonal entry 1: 0" in only(done).message


class TestSingular:
    @pytest.mark.parametrize("method", ["gmres", "minres", "direct"])
    def test_no_solution(self, method: str) -> None:
        """x + y is asked to be both 1 and 2."""
        done = solved(dense([[1, 1], [1, 1]]), [1, 2], method=method)

        assert done.status == "singular"
        assert np.isfinite(done.x).all()
        assert only(done).residual >= math.sqrt(0.5) - 1e-12

    @pytest.mark.parametrize("method", ["gmres", "minres", "cg"])
    def test_one_of_many_solutions(self, method: str) -> None:
        """A singular matrix whose range holds b has solutions, and one is found."""
        a = dense([[1, -1, 0], [-1, 2, -1], [0, -1, 1]])

        done = solved(a, [1, 0, -1], method=method, rtol=1e-10)

        assert done.status == "converged"

    def test_zero_matrix(self) -> None:
        for method in ("gmres", "minres", "direct"):
            assert solved(dense([[0.0]]), [1], method=method).status == "singular"
        assert solved(dense([[0.0]]), [1], method="bicgstab").status == "breakdown"
        assert solved(dense([[0.0]]), [1], method="lsqr").status == "converged"

    def test_nearly(self) -> None:
        """Hilbert's matrix of 14 rows: backward stable, and honest beyond that."""
        n = np.arange(14)
        hilbert = 1 / (n[:, None] + n + 1.0)

        easy = solved(dense(hilbert), hilbert @ np.ones(14), method="direct", rtol=1e-9)
        hard = solved(dense(hilbert), hilbert @ np.ones(14), method="direct", rtol=0)

        assert easy.status == "converged"
        assert only(easy).backward_error < 1e-15
        assert hard.status in ("numerical_error", "converged")


class TestRefusals:
    @pytest.mark.parametrize(
        ("b", "message"),
        [
            (np.zeros(3), r"b is float64 of shape \[3\], .* \[361\] or \[361, k\]"),
            (np.zeros((361, 1, 1)), r"shape \[361, 1, 1\]"),
            (np.zeros((361, 0)), "b has 0 columns, but must have 1 to 256"),
            (np.zeros((361, 257)), "b has 257 columns"),
            (np.full(361, np.nan), r"b\[0\] is nan, but must be finite"),
            (np.full((361, 2), np.inf), r"b\[0, 0\] is inf, but must be finite"),
            (np.zeros(361, complex), "b is complex128"),
        ],
    )
    def test_right_hand_side(self, b: Any, message: str) -> None:
        """Shape, type and values."""
        with pytest.raises(InvalidInputError, match=message):
            Solve(operator(SUITED["cg"]), b)

    @pytest.mark.parametrize("x0", [np.zeros(361), np.zeros((361, 3))])
    def test_first_iterates(self, x0: Any) -> None:
        """As many as right-hand sides."""
        with pytest.raises(InvalidInputError, match="x0"):
            Solve(operator(SUITED["cg"]), np.zeros((361, 2)), x0)

    @pytest.mark.parametrize(
        ("settings", "kind", "message"),
        [
            ({"method": "magic"}, ImpossibleError, "method is 'magic'"),
            ({"rtol": -1}, ImpossibleError, "rtol is -1"),
            ({"rtol": 10**400}, ImpossibleError, "rtol is 1000"),
            ({"rtol": math.nan}, ImpossibleError, "rtol is nan"),
            ({"rtol": "1"}, MalformedError, "rtol is '1'"),
            ({"atol": math.inf}, ImpossibleError, "atol is inf"),
            ({"maxiter": 0}, ImpossibleError, "maxiter is 0"),
            ({"maxiter": True}, MalformedError, "maxiter is True"),
            ({"maxiter": 10**400}, ImpossibleError, "maxiter is"),
            ({"restart": 1001}, ImpossibleError, "restart is 1001"),
            ({"restart": 2.5}, MalformedError, "restart is 2.5"),
            ({"time_limit": -1}, ImpossibleError, "time_limit is -1"),
            ({"preconditioner": "ilu"}, ImpossibleError, "preconditioner of cg"),
            ({"preconditioner": "ilu0"}, ImpossibleError, "none, jacobi, ic0"),
            ({"preconditioner": ["x"]}, ImpossibleError, "preconditioner of cg"),
            ({"method": "direct", "preconditioner": "jacobi"}, ImpossibleError, "one"),
        ],
    )
    def test_settings(
        self, settings: Any, kind: type[ServiceError], message: str
    ) -> None:
        """Each setting is named."""
        with pytest.raises(kind, match=message):
            SolveSettings.of(settings)

    def test_workspace(self) -> None:
        """GMRES with a thousand vectors for many right-hand sides is counted first."""
        settings = SolveSettings(method="gmres", restart=1000)
        shape = (100_000, 100_000)

        with pytest.raises(ImpossibleError, match=r"take \d+ bytes; the limit is"):
            settings.check_workspace(shape, 500_000, 32)
        settings.check_workspace(shape, 500_000, 1)

    def test_width(self) -> None:
        """A round over a large matrix takes fewer right-hand sides, to be short."""
        settings = SolveSettings()

        assert settings.width((1000, 1000), 5000) == WIDTH
        assert settings.width((10**5, 10**5), 10**6) == 10
        assert settings.width((10**6, 10**6), 10**8) == 4
        assert SolveSettings(method="direct").width((9, 9), 9) == 4

    def test_matrix(self) -> None:
        """Square, unless for least squares, and finite."""
        with pytest.raises(InvalidMatrixError, match=r"shape \[1, 2\], .* square"):
            Solve(dense([[1.0, 2]]), np.ones(1))
        with pytest.raises(InvalidMatrixError, match="NaN or an infinity"):
            Solve(dense([[np.inf]]), np.ones(1))


class TestIncompleteCholesky:
    def test_shifted(self) -> None:
        """Kershaw's matrix is SPD, and IC(0) of it needs a shift."""
        a = dense([[3, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]])

        done = solved(a, [1, 2, 3, 4], preconditioner="ic0", rtol=1e-12)

        assert done.status == "converged"


def test_unsorted_rows_with_duplicates() -> None:
    """A matrix is what its entries add up to, in any order, for each preconditioner."""
    a = convection(7)
    coo = (a + 0 * poisson(7)).tocoo()
    order = np.random.default_rng(1).permutation(2 * coo.nnz)
    row, column = np.tile(coo.row, 2)[order], np.tile(coo.col, 2)[order]
    data = np.tile(coo.data / 2, 2)[order]
    by_row = np.argsort(row, kind="stable")
    messy = scipy.sparse.csr_array(a.shape)
    messy.data, messy.indices = data[by_row], column[by_row].astype(np.int32)
    messy.indptr = np.concatenate(
        [[0], np.cumsum(np.bincount(row, minlength=a.shape[0]))]
    ).astype(np.int32)
    b = right(a)

    for method, allowed in METHODS.items():
        if method in ("cg", "minres"):
            continue
        for name in allowed:
            done = solved(
                operator(messy), b, method=method, preconditioner=name, rtol=1e-9
            )
            assert done.status == "converged", (method, name)
            assert np.linalg.norm(b - a @ done.x) <= 1.1e-9 * np.linalg.norm(b)
