"""Operators of matrices against scipy's, on the application inside this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import nnz
from nnz import AsyncClient, Client
from nnz._expressions import Expression


def integers(rows: int, columns: int, seed: int) -> sp.csr_array:
    """Small whole numbers, so that every answer is exact."""
    found = sp.random_array(
        (rows, columns), density=0.4, rng=np.random.default_rng(seed), format="csr"
    )
    found.data = np.ceil(found.data * 5)
    return found


A, B, S = integers(9, 7, 1), integers(7, 5, 2), integers(7, 7, 3)


@pytest.fixture(scope="module", params=["sync", "async"])
def client(request: pytest.FixtureRequest, blocking: Any) -> Iterator[Any]:
    """One server for all tests of a kind."""
    if request.param == "sync":
        with Client.local(threads=1) as own:
            yield own
        return
    with asyncio.Runner() as runner:
        inner = AsyncClient.local(threads=1)
        yield blocking(inner, runner)
        runner.run(inner.close())


@pytest.fixture(scope="module")
def held(client: Any) -> Any:
    return [client.matrices.put(matrix) for matrix in (A, B, S)]


def same(remote: Any, local: Any) -> None:
    """The same shape and numbers; the same pattern where scipy keeps zeros too."""
    found = remote.to_scipy()
    assert remote.shape == found.shape == local.shape
    np.testing.assert_array_equal(found.toarray(), local.toarray())


class TestOperators:
    def test_semirings(self, client: Any, held: Any) -> None:
        """Both ways to ask for them: a handle's, and part of a chain."""
        _, _, s = held
        far = np.where(S.toarray() == 0, np.inf, S.toarray())
        paths = (far[:, :, None] + far[None]).min(axis=1)
        (found,) = client.chain(s.lazy().times(s, semiring="min_plus", mask=s))

        shortest = s.product(s, semiring="min_plus", name="two steps")
        assert shortest.info.name == "two steps"
        same(shortest, sp.csr_array(np.where(np.isinf(paths), 0, paths)))
        wanted = np.where(np.isinf(paths) | np.isinf(far), 0, paths)
        same(found, sp.csr_array(wanted))

    def test_semirings_of_vectors(self, client: Any, held: Any) -> None:
        """Of a matrix and its transpose, columns, and in a chain after another one."""
        a, _, s = held
        far = np.where(A.toarray() == 0, np.inf, A.toarray())
        x, y = np.arange(7.0), np.arange(18.0).reshape(9, 2)

        near = (far + x).min(axis=1)
        turned = (far.T[:, :, None] + y).min(axis=1)
        np.testing.assert_array_equal(a.product(x, semiring="min_plus"), near)
        np.testing.assert_array_equal(a.T.product(y, semiring="min_plus"), turned)
        np.testing.assert_array_equal(a.product(x), A @ x)
        one = s.lazy().applied(x > 2, semiring="or_and")
        two = s.lazy().T.applied(one, semiring="or_and")
        (reached,) = client.chain(two)
        hops = (S.T != 0).toarray() @ ((S != 0).toarray() @ (x > 2))
        np.testing.assert_array_equal(reached, hops > 0)
        with pytest.raises(TypeError, match="a scipy matrix is not on the server"):
            a.product(B)
        with pytest.raises(TypeError, match="a mask and a name are for products of"):
            a.product(x, name="y")
        with pytest.raises(ValueError, match=r"multiplies \(7,\)"):
            a.product(np.ones(9), semiring="min_plus")
        with pytest.raises(nnz.BadRequestError, match="must be one of plus_times"):
            a.product(x, semiring="plus")

    def test_products(self, held: Any) -> None:
        a, b, s = held

        same(a @ b, A @ B)
        same(s.product(s, mask=s.T), (S @ S) * (S.T != 0))
        with pytest.raises(ValueError, match=r"mask has shape \(9, 7\); \(7, 5\)"):
            s.product(b, mask=a)
        same(a.T @ a, A.T @ A)
        same(b.T @ (s @ a.T), B.T @ S @ A.T)

    def test_no_name_of_scipys_means_something_else(self, held: Any) -> None:
        """There ``multiply`` goes by entries, which no operation of the server does."""
        for one in (held[0], held[0].lazy()):
            assert not hasattr(one, "multiply")

    def test_handles_and_expressions_mix(self, client: Any, held: Any) -> None:
        """In any order, and nothing is sent before the chain."""
        a, b, s = held
        mixed = [a @ b.lazy(), s + s.T.lazy(), s - s.T.lazy(), s.dot(s.lazy())]
        y = a @ (b.lazy() @ np.arange(5.0))

        assert all(isinstance(one, Expression) for one in mixed)
        *made, z = client.chain(*mixed, y)
        for one, right in zip(made, (A @ B, S + S.T, S - S.T, S @ S), strict=True):
            same(one, right)
        np.testing.assert_array_equal(z, A @ (B @ np.arange(5.0)))
        with pytest.raises(ValueError, match=r"\(9, 7\) cannot be multiplied"):
            a @ a.lazy()
        with pytest.raises(ValueError, match="cannot be added"):
            a + b.lazy()

    def test_scipys_other_names(self, client: Any, held: Any) -> None:
        a, b, _ = held
        x = np.arange(7.0)

        same(a.transpose(), A.transpose())
        same(a.dot(b), A.dot(B))
        np.testing.assert_array_equal(a.dot(x), A.dot(x))
        lazy = a.lazy()
        turned, y = client.chain(lazy.transpose(), lazy.dot(x))
        same(turned, A.transpose())
        np.testing.assert_array_equal(y, A.dot(x))

    def test_sums_and_multiples(self, held: Any) -> None:
        a, _, s = held

        same(s + s.T, S + S.T)
        same(s.T - s.T, S.T - S.T)
        same(2 * a, 2 * A)
        same(a.T * 0.5, A.T * 0.5)
        same(-a / 4, -A / 4)
        same(np.float64(3) * a, 3 * A)

    def test_entries_that_cancel_stay(self, held: Any) -> None:
        assert (held[2] - held[2]).nnz == S.nnz

    @pytest.mark.parametrize(
        "key",
        [np.s_[1:8:2, ::-1], np.s_[[4, 0, 4]], np.ix_([8, 1], [0, 6, 3]), np.s_[:, :3]],
        ids=str,
    )
    def test_pieces(self, held: Any, key: Any) -> None:
        same(held[0][key], A[key])

    def test_pieces_of_a_view(self, held: Any) -> None:
        same(held[0].T[1:, [8, 0]], A.T.tocsr()[1:, [8, 0]])

    def test_scales_and_samples(self, held: Any) -> None:
        a, rng = held[0], np.random.default_rng(4)
        r, c = rng.integers(1, 5, 9) * 1.0, rng.integers(1, 5, 7) * 1.0
        x, y = rng.integers(0, 5, (9, 3)) * 1.0, rng.integers(0, 5, (7, 3)) * 1.0

        same(a.scale(rows=r, columns=c), sp.diags_array(r) @ A @ sp.diags_array(c))
        same(a.T.scale(columns=r), A.T @ sp.diags_array(r))
        same(a.sddmm(x, y), sp.csr_array((x @ y.T) * (A.toarray() != 0)))
        same(a.T.sddmm(y, x), sp.csr_array((y @ x.T) * (A.T.toarray() != 0)))

    def test_dense_answers(self, held: Any) -> None:
        a, s = held[0], held[2]

        np.testing.assert_array_equal(a.diagonal(), A.diagonal())
        np.testing.assert_array_equal(a.sum(axis=0), A.sum(axis=0))
        np.testing.assert_array_equal(a.T.sum(axis=0), A.T.sum(axis=0))
        assert a.sum() == A.sum()
        for kind in ("fro", 1, np.inf):
            assert s.norm(kind) == pytest.approx(spla.norm(S, kind))
            assert s.T.norm(kind) == pytest.approx(spla.norm(S.T, kind))
        assert a.norm("max") == abs(A).max()

    def test_triangles(self, client: Any) -> None:
        t = sp.csr_array(sp.tril(S) + 9 * sp.eye_array(7))
        remote, b = client.matrices.put(t), np.arange(1.0, 8)

        found = remote.solve_triangular(b)
        turned = remote.T.solve_triangular(b, lower=False)
        unit = remote.solve_triangular(b, unit_diagonal=True)

        np.testing.assert_allclose(t @ found, b, rtol=1e-13)
        np.testing.assert_allclose(t.T @ turned, b, rtol=1e-13)
        strict = sp.tril(t, -1) + sp.eye_array(7)
        np.testing.assert_allclose(strict @ unit, b, rtol=1e-9)

    def test_complex_ones(self, client: Any) -> None:
        matrix = sp.csr_array(np.array([[1 + 2j, 0], [3j, 4]]))
        remote = client.matrices.put(matrix)

        same(remote.H, matrix.conj().T)
        same(remote.conj(), matrix.conj())
        same(remote.H @ remote, matrix.conj().T @ matrix)
        assert remote.H.dtype == np.complex128

    def test_a_view_becomes_a_matrix(self, held: Any) -> None:
        a = held[0]

        turned = a.T.stored(name="turned")

        assert turned.info.name == "turned"
        assert turned.id != a.id
        same(turned, A.T)
        assert a.stored().id == a.id

    def test_only_matrices_and_numbers(self, held: Any) -> None:
        for wrong in (lambda a: a + 1, lambda a: a - A, lambda a: a * 1j):
            with pytest.raises(TypeError):
                wrong(held[0])

    def test_jobs_and_values_refuse_views(self, client: Any, held: Any) -> None:
        """A.T has the id of A: they would work on the wrong matrix."""
        with pytest.raises(ValueError, match=r"stored\(\)"):
            client.jobs.solve(held[2].T, np.ones(7))
        with pytest.raises(ValueError, match=r"stored\(\)"):
            held[2].T.with_values(np.ones(S.nnz))


class TestChains:
    def test_one_request_for_all(self, client: Any, held: Any) -> None:
        a, s = held[0].lazy(), held[2].lazy()
        coarse = a @ s @ a.T
        before = {info.id for info in client.matrices.list()}

        found, diagonal, size = client.chain(
            coarse, coarse.diagonal(), coarse.norm("max"), names=["coarse", None, None]
        )

        local = A @ S @ A.T
        same(found, local)
        np.testing.assert_array_equal(diagonal, local.diagonal())
        assert size == local.max()
        assert found.info.name == "coarse"
        added = {info.id for info in client.matrices.list()} - before
        assert added <= {found.id}

    def test_vectors_flow_on(self, client: Any, held: Any) -> None:
        s = held[2].lazy()
        x = np.arange(7.0)

        (y,) = client.chain(s @ (s.T @ x))

        np.testing.assert_array_equal(y, S @ (S.T @ x))

    def test_a_view_of_a_result(self, client: Any, held: Any) -> None:
        (found,) = client.chain((2 * held[0].lazy()).T)

        same(found, 2 * A.T)

    def test_preflight(self, client: Any, held: Any) -> None:
        a, b, _ = held
        cost = client.preflight(a.lazy() @ b.lazy())
        exact = a.preflight("spgemm", b, exact=True)

        assert cost["fits"]
        assert cost["steps"][0]["output_nnz"] >= (A @ B).nnz
        assert exact["output_nnz_exact"]
        assert exact["flops"] == cost["flops"]
        with pytest.raises(ValueError, match=r"stored\(\)"):
            a.T.preflight("transpose")

    def test_a_step_that_fails_is_named(self, client: Any) -> None:
        zero = client.matrices.put(sp.csr_array((2, 2))).lazy()

        with pytest.raises(nnz.ImpossibleError, match=r"step 's1' \(triangular_solve"):
            client.chain(zero.solve_triangular([1.0, 1]))

    def test_by_the_servers_names(self, client: Any, held: Any) -> None:
        a, b, _ = held

        same(client.ops.apply("spgemm", a, b.id, name="ab"), A @ B)
        assert client.ops.apply("norm", a, kind="max")["norm"].tolist() == [A.max()]


class TestJobs:
    def test_operations(self, client: Any, held: Any) -> None:
        a, b, _ = held

        job = client.jobs.op("spgemm", a, b, name="by a job")
        made = job.result(timeout=60)

        same(made, A @ B)
        assert client.matrices.get(made.id).info.name == "by a job"
        assert client.jobs.get(job.id).result().id == made.id
        total = client.jobs.op("add", a, a, beta=2).result(timeout=60)
        same(total, 3 * A)

    def test_chains(self, client: Any, held: Any) -> None:
        """As one request would give them, views too."""
        a, b, s = (each.lazy() for each in held)
        wanted = [a @ b, (s @ s).T, (s @ s).diagonal(), s.norm("max"), s @ np.ones(7)]
        now = client.chain(*wanted)

        job = client.jobs.chain(*wanted, names=["ab", *4 * [None]])
        later = job.results(timeout=60)

        assert job.info.kind == "chain"
        assert later[0].id == now[0].id
        same(later[0], A @ B)
        same(later[1], (S @ S).T)
        np.testing.assert_array_equal(later[2], now[2])
        assert later[3] == now[3]
        np.testing.assert_array_equal(later[4], S.sum(axis=1))
        assert set(client.jobs.get(job.id).result()) == {
            row["as"] for row in job.info.params["steps"] if row["keep"]
        }

    def test_factors(self, client: Any) -> None:
        matrix = sp.csr_array(S + 20 * sp.eye_array(7))
        remote = client.matrices.put(matrix)

        factors = remote.factorize(timeout=60)
        again = remote.factorize(timeout=60)
        one = factors.solve(np.ones(7), timeout=60)
        many = factors.solve(np.eye(7), timeout=60)

        assert factors.entries == again.entries >= 7
        assert factors.kept
        assert one.converged
        assert one.method == "direct"
        np.testing.assert_allclose(matrix @ one.x, np.ones(7), rtol=1e-12)
        np.testing.assert_allclose(matrix @ many.x, np.eye(7), atol=1e-12)

    def test_no_factors(self, client: Any, held: Any) -> None:
        with pytest.raises(nnz.ImpossibleError, match="square"):
            held[0].factorize()
        singular = client.matrices.put(sp.csr_array(np.ones((2, 2))))
        with pytest.raises(nnz.JobFailedError, match="singular"):
            singular.factorize(timeout=60)


class TestMatrices:
    def test_residence(self, client: Any) -> None:
        remote = client.matrices.put(sp.eye_array(3) * 7)

        remote.unload()
        assert remote.info.state != "READY"
        remote.load()
        assert remote.info.state == "READY"
        remote.pin()
        assert remote.info.pinned
        remote.unpin()
        assert not remote.info.pinned

    def test_the_entries_come_back(self, client: Any) -> None:
        for matrix in (A.astype("f4"), A, A * 1j, sp.csr_array((0, 3))):
            remote = client.matrices.put(matrix)
            found = remote.to_scipy()
            assert found.dtype == matrix.dtype
            assert (abs(found - matrix)).nnz == 0
            np.testing.assert_array_equal(found.indptr, matrix.indptr)

    def test_values_at_shared_places_come_back(self, client: Any, held: Any) -> None:
        other = held[0].with_values(np.arange(A.nnz) + 1.0)

        np.testing.assert_array_equal(other.to_scipy().data, np.arange(A.nnz) + 1.0)

    def test_a_file_in_pieces(
        self, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from nnz import _matrix_calls

        monkeypatch.setattr(_matrix_calls, "PIECE", 300)
        sp.save_npz(tmp_path / "a.npz", A, compressed=False)
        size, told = (tmp_path / "a.npz").stat().st_size, []

        remote = client.matrices.put(
            tmp_path / "a.npz", progress=lambda done, total: told.append((done, total))
        )

        same(remote, A)
        assert told[-1] == (size, size)
        assert [done for done, _ in told] == [*range(300, size, 300), size]
        with pytest.raises(TypeError, match="for files"):
            client.matrices.put(A, progress=lambda done, total: None)


def test_scipys_least_squares_take_a_handle() -> None:
    with Client.local(threads=1) as client:
        x = spla.lsqr(client.matrices.put(A), np.ones(9), atol=1e-12, btol=1e-12)[0]

    expected = np.linalg.lstsq(A.toarray(), np.ones(9), rcond=None)[0]
    np.testing.assert_allclose(A @ x, A @ expected, atol=1e-8)
