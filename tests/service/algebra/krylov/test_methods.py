"""Every method: by hand, against the definition, and beside SciPy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg as spla
from service.algebra.krylov.systems import (
    PAIRS,
    SUITED,
    dense,
    only,
    operator,
    right,
    solved,
    tall,
)

from nnz_kernels.convert import csr_to_scipy
from nnz_service.algebra.files import read_matrix
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.solving import METHODS


class TestByHand:
    def test_cg(self) -> None:
        """Two unknowns take two iterations: the example of many textbooks."""
        done = solved(dense([[4, 1], [1, 3]]), [1, 2], np.array([2.0, 1.0]), rtol=1e-12)

        assert (done.status, only(done).iterations) == ("converged", 2)
        np.testing.assert_allclose(done.x, [1 / 11, 7 / 11])

    def test_minres(self) -> None:
        """An indefinite matrix: x1 + 2 x2 = 5, 2 x1 - 3 x2 = -4 at (1, 2)."""
        done = solved(dense([[1, 2], [2, -3]]), [5, -4], method="minres", rtol=1e-12)

        assert (done.status, only(done).iterations) == ("converged", 2)
        np.testing.assert_allclose(done.x, [1, 2])

    @pytest.mark.parametrize("method", ["gmres", "bicgstab"])
    def test_not_symmetric(self, method: str) -> None:
        """x + y = 3, y + z = 5, 2 z = 6 at (1, 2, 3), in three iterations at most."""
        a = dense([[1, 1, 0], [0, 1, 1], [0, 0, 2]])

        done = solved(a, [3, 5, 6], method=method, rtol=1e-12)

        assert done.status == "converged"
        assert only(done).iterations <= 3
        np.testing.assert_allclose(done.x, [1, 2, 3])

    def test_gmres_turns_a_cycle(self) -> None:
        """A permutation: the residual stays until the space is whole, then is zero."""
        a = dense([[0, 0, 1], [1, 0, 0], [0, 1, 0]])

        short = solved(a, [1, 0, 0], method="gmres", maxiter=2)
        whole = solved(a, [1, 0, 0], method="gmres", maxiter=3)

        assert (short.status, only(short).residual) == ("iteration_limit", 1.0)
        assert (whole.status, only(whole).iterations) == ("converged", 3)
        np.testing.assert_allclose(whole.x, [0, 0, 1], atol=1e-15)

    def test_lsqr(self) -> None:
        """The line through (0, 1), (1, 2), (2, 4): 5/6 + 3/2 t."""
        a = dense([[1, 0], [1, 1], [1, 2]])

        done = solved(a, [1, 2, 4], method="lsqr", rtol=1e-10)

        assert done.status == "converged"
        assert "least-squares" in only(done).message
        np.testing.assert_allclose(done.x, [5 / 6, 3 / 2])
        assert only(done).residual == pytest.approx(np.sqrt(1 / 6))

    def test_direct(self) -> None:
        """The first pivot is zero: rows are exchanged."""
        done = solved(dense([[0, 2], [3, 1]]), [4, 5], method="direct", rtol=1e-15)

        assert (done.status, only(done).iterations) == ("converged", 1)
        assert done.x.tolist() == [1, 2]


#: Pairs whose second half does more than scale rows that are equal anyway.
HELPFUL = [pair for pair in PAIRS if pair[1] not in ("none", "jacobi")]


class TestDefinition:
    @pytest.mark.parametrize(("method", "preconditioner"), PAIRS)
    def test_residual(self, method: str, preconditioner: str) -> None:
        """The answer fits the definition, and all that is told of it."""
        a = SUITED[method]
        b = right(a)
        asked = {"method": method, "preconditioner": preconditioner, "rtol": 1e-9}

        done = solved(operator(a), b, **asked)

        r = b - a @ done.x
        found = only(done)
        assert done.status == "converged"
        assert np.linalg.norm(r) <= 1.001e-9 * np.linalg.norm(b)
        assert found.residual == pytest.approx(np.linalg.norm(r), rel=1e-3)
        scale = abs(a).sum(axis=1).max() * np.abs(done.x).max() + np.abs(b).max()
        assert found.backward_error == pytest.approx(np.abs(r).max() / scale, rel=1e-2)
        rows = np.abs(r) / (abs(a) @ np.abs(done.x) + np.abs(b))
        assert found.componentwise_backward_error == pytest.approx(rows.max(), rel=1e-2)
        assert done.result()["preconditioner"] == preconditioner

    @pytest.mark.parametrize(("method", "preconditioner"), HELPFUL)
    def test_it_helps(self, method: str, preconditioner: str) -> None:
        """An incomplete factorisation or a polynomial saves half of the iterations."""
        a = SUITED[method]
        b = right(a)

        plain = solved(operator(a), b, method=method, rtol=1e-9)
        helped = solved(
            operator(a), b, method=method, rtol=1e-9, preconditioner=preconditioner
        )

        assert only(helped).iterations * 2 < only(plain).iterations + 2


class TestBesideScipy:
    @pytest.mark.parametrize(
        ("method", "theirs"),
        [("cg", spla.cg), ("minres", spla.minres), ("bicgstab", spla.bicgstab)],
    )
    def test_iterations(self, method: str, theirs: Any) -> None:
        a = SUITED[method]
        b = right(a)
        count: list[int] = []
        x, info = theirs(a, b, rtol=1e-8, callback=lambda _x: count.append(1))
        assert info == 0

        done = solved(operator(a), b, method=method, rtol=1e-8)

        np.testing.assert_allclose(done.x, x, rtol=1e-4, atol=1e-4)
        if method != "minres":  # which stops on another measure
            assert abs(only(done).iterations - len(count)) <= max(2, len(count) // 5)

    def test_gmres(self) -> None:
        a = SUITED["gmres"]
        b = right(a)
        count: list[float] = []
        spla.gmres(a, b, rtol=1e-8, restart=20, callback=count.append,
                   callback_type="pr_norm")  # fmt: skip

        done = solved(operator(a), b, method="gmres", rtol=1e-8, restart=20)

        assert abs(only(done).iterations - len(count)) <= 2

    @pytest.mark.parametrize("preconditioner", ["none", "jacobi"])
    def test_least_squares(self, preconditioner: str) -> None:
        a = tall(90, 40)
        b = right(a)

        done = solved(
            operator(a), b, method="lsqr", rtol=1e-12, preconditioner=preconditioner
        )

        expected = np.linalg.lstsq(a.toarray(), b)[0]
        assert done.status == "converged"
        np.testing.assert_allclose(done.x, expected, rtol=1e-7, atol=1e-9)

    def test_underdetermined(self) -> None:
        """The shortest of the solutions."""
        a = tall(90, 40).T.tocsr()
        b = right(a)

        done = solved(operator(a), b, method="lsqr", rtol=1e-12)

        expected = np.linalg.lstsq(a.toarray(), b)[0]
        np.testing.assert_allclose(done.x, expected, rtol=1e-6, atol=1e-8)


class TestInputs:
    @pytest.mark.parametrize("method", METHODS)
    def test_nothing_to_do(self, method: str) -> None:
        """b = 0, and an exact first iterate, take no iteration."""
        a = SUITED[method]
        exact = right(a)

        zero = solved(operator(a), np.zeros(a.shape[0]), method=method)
        done = solved(operator(a), a @ exact, exact, method=method)

        assert (zero.status, only(zero).iterations) == ("converged", 0)
        assert (only(zero).residual, only(zero).backward_error) == (0, 0)
        assert (done.status, only(done).iterations) == ("converged", 0)
        assert done.x.tolist() == exact.tolist()

    @pytest.mark.parametrize("method", METHODS)
    def test_first_iterate(self, method: str) -> None:
        """A good guess saves iterations, and never loses the answer."""
        a = SUITED[method]
        b = right(a)
        exact = spla.spsolve(a.tocsc(), b)

        cold = solved(operator(a), b, method=method, rtol=1e-8)
        warm = solved(operator(a), b, exact + 1e-6, method=method, rtol=1e-8)

        assert warm.status == "converged"
        assert only(warm).iterations <= only(cold).iterations

    @pytest.mark.parametrize("method", METHODS)
    def test_no_unknowns(self, method: str) -> None:
        assert solved(dense(np.zeros((0, 0))), [], method=method).status == "converged"

    @pytest.mark.parametrize("method", METHODS)
    def test_float32_matrix(self, method: str) -> None:
        """It is solved in float64, to tolerances below float32's."""
        a = SUITED[method].astype(np.float32)
        b = right(a)

        done = solved(operator(a, np.float32), b, method=method, rtol=1e-11)

        assert done.status == "converged"
        residual = np.linalg.norm(b - a.astype(float) @ done.x)
        assert residual <= 1.001e-11 * np.linalg.norm(b)

    @pytest.mark.parametrize("preconditioner", ["jacobi", "ic0"])
    def test_real_matrix(self, data_dir: Path, preconditioner: str) -> None:
        """Power network 1138_bus, condition about 1e7."""
        file = data_dir / "mtx" / "spd" / "1138_bus.mtx"
        stored = read_matrix(file, "text/x-matrix-market")
        a = csr_to_scipy(stored)
        b = a @ np.ones(1138)

        done = solved(
            MatrixOperator(stored), b, rtol=1e-10, preconditioner=preconditioner
        )

        assert done.status == "converged"
        assert np.linalg.norm(b - a @ done.x) <= 1e-10 * np.linalg.norm(b)
        np.testing.assert_allclose(done.x, 1, atol=1e-4)

    def test_chemistry(self, data_dir: Path) -> None:
        """west0067 has zeros on its diagonal: LU takes it, ilu0 says why not."""
        file = data_dir / "mtx" / "general" / "west0067.mtx"
        a = MatrixOperator(read_matrix(file, "text/x-matrix-market"))
        b = np.ones(67)

        exact = solved(a, b, method="direct", rtol=1e-10)
        whole = solved(a, b, method="gmres", restart=67, rtol=1e-8)
        ilu = solved(a, b, method="gmres", preconditioner="ilu0")

        assert (exact.status, whole.status) == ("converged", "converged")
        assert ilu.status == "breakdown"
        assert "ilu0 has no pivot in row" in only(ilu).message
