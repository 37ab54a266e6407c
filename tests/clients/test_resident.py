"""What matrices on a server are besides multiplied, by both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import nnz
from nnz import AsyncClient, Client, _matrix_calls
from nnz._calls import put_matrix, put_model
from nnz_service.repository import intake


def poisson(side: int) -> sp.csr_array:
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    eye = sp.eye_array(side)
    return sp.csr_array(sp.kron(line, eye) + sp.kron(eye, line))


@pytest.fixture(scope="module", params=["sync", "async"])
def client(request: pytest.FixtureRequest, blocking: Any) -> Iterator[Any]:
    if request.param == "sync":
        with Client.local(threads=1) as own:
            yield own
        return
    with asyncio.Runner() as runner:
        inner = AsyncClient.local(threads=1)
        yield blocking(inner, runner)
        runner.run(inner.close())


class TestMatrices:
    def test_describes_and_draws(self, client: Any) -> None:
        remote = client.matrices.put(poisson(5))

        info = client.matrices.get(remote.id).info

        assert info == remote.info
        assert (info.symmetry, info.pattern_symmetric) == ("symmetric", True)
        assert info.row_nnz == {"min": 3, "mean": 4.2, "max": 5, "empty": 0}
        assert info.bandwidth == {"lower": 5, "upper": 5}
        assert (info.zero_diagonal, info.stored_zeros, info.finite) == (0, 0, True)
        assert info.dense_bytes == 25 * 25 * 8
        assert remote.spy(size=100).startswith(b"\x89PNG")

    def test_other_values(self, client: Any) -> None:
        first = poisson(6)
        second = first.copy()
        second.data = np.arange(1.0, first.nnz + 1)
        remote = client.matrices.put(first)
        x = np.random.default_rng(0).random(36)

        new = remote.with_values(second, name="other")
        again = remote.with_values(second.data)

        assert new.id == again.id != remote.id
        assert new.info.name == "other"
        np.testing.assert_allclose(new @ x, second @ x)
        np.testing.assert_allclose(remote @ x, first @ x)
        assert client.matrices.put(second).id == new.id  # as if it came whole
        with pytest.raises(nnz.ConflictError, match="other places"):
            remote.with_values(poisson(6).T.tocsr() + sp.eye_array(36, k=7))
        with pytest.raises(nnz.ImpossibleError, match=r"\[3\], .* 156 entries"):
            remote.with_values([1, 2, 3])

    def test_complex_values(self, client: Any) -> None:
        matrix = sp.csr_array(np.array([[1, 2 + 1j], [2 - 1j, 0]]))

        remote = client.matrices.put(matrix)

        assert (remote.dtype, remote.info.dtype) == (np.complex128, "C128")
        assert remote.info.symmetry == "hermitian"
        with pytest.raises(nnz.ImpossibleError, match="real and imaginary parts"):
            client.infer(remote.id, {"x": np.ones((1, 2))})
        other = remote.with_values(matrix.data.conj())
        assert client.matrices.get(other.id).info.symmetry == "hermitian"
        assert other.id == client.matrices.put(matrix.conj()).id

    def test_complex_products(self, client: Any) -> None:
        """Every view of a matrix, with vectors and blocks, real and complex."""
        rng = np.random.default_rng(1)
        dense = rng.random((3, 4)) + 1j * rng.random((3, 4))
        remote = client.matrices.put(sp.csr_array(dense))
        views = [
            (remote, dense), (remote.T, dense.T), (remote.H, dense.conj().T),
            (remote.conj(), dense.conj()),
        ]  # fmt: skip

        for view, wanted in views:
            n = wanted.shape[1]
            for shape in ((n,), (n, 3)):
                z = rng.random(shape) + 1j * rng.random(shape)
                for x in (z, z.real):
                    np.testing.assert_allclose(view @ x, wanted @ x)
            np.testing.assert_allclose(view.diagonal(), np.diagonal(wanted))
            np.testing.assert_allclose(view.sum(axis=0), wanted.sum(axis=0))
            np.testing.assert_allclose(view.sum(), wanted.sum())
            np.testing.assert_allclose(view.stored().to_scipy().toarray(), wanted)
            square = (
                view @ remote.stored().H if wanted.shape == (3, 4) else view @ remote
            )
            other = dense.conj().T if wanted.shape == (3, 4) else dense
            np.testing.assert_allclose(square.to_scipy().toarray(), wanted @ other)
            one, two = client.chain(view.lazy().diagonal(), view.lazy().sum(1))
            np.testing.assert_allclose(one, np.diagonal(wanted))
            np.testing.assert_allclose(two, wanted.sum(axis=1))
        y = rng.random(3) + 1j * rng.random(3)
        np.testing.assert_allclose(remote.rmatvec(y), dense.conj().T @ y)
        with pytest.raises(TypeError, match="A @ x multiplies"):
            remote.lazy() @ np.ones(4)

    @pytest.mark.parametrize("ending", [".npz", ".mtx"])
    def test_a_large_file_goes_in_pieces(
        self,
        client: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        ending: str,
    ) -> None:
        matrix = poisson(20)
        path = tmp_path / f"a{ending}"
        if ending == ".npz":
            sp.save_npz(path, matrix)
        else:
            scipy.io.mmwrite(path, matrix)
        monkeypatch.setattr(_matrix_calls, "LARGE", 1)
        monkeypatch.setattr(_matrix_calls, "PIECE", 1000)

        put = client.matrices.put(path, name="large")

        assert put.info.name == "large"
        assert put.id == client.matrices.put(matrix).id


class TestPlan:
    """Without a server: what is asked after what came back."""

    @pytest.fixture
    def plan(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(_matrix_calls, "PIECE", 4)
        (tmp_path / "a.mtx.gz").write_bytes(b"0123456789")
        return _matrix_calls.in_pieces(tmp_path / "a.mtx.gz", "label")

    def test_only_the_rest_goes_again(self, plan: Any) -> None:
        first = next(plan)
        assert (first.method, first.headers["Upload-Length"]) == ("POST", "10")
        piece = plan.send("u-1")
        assert b"".join(piece.content.open()) == b"0123"
        look = plan.throw(nnz.ConnectError("cut"))
        assert (look.method, look.path) == ("HEAD", "/v1/uploads/u-1")

        sent = [plan.send(3), plan.send(7)]

        assert [b"".join(one.content.open()) for one in sent] == [b"3456", b"789"]
        assert [one.headers["Upload-Offset"] for one in sent] == ["3", "7"]
        last = plan.send(10)
        assert last.params == {"name": "label", "upload": "u-1"}
        assert last.headers == {"Content-Type": "application/gzip"}

    def test_the_client_is_as_patient_as_the_server(self, plan: Any) -> None:
        """Who hung up while a file is read would send it again, for ever."""
        next(plan)
        plan.send("u-1")
        calls = plan.send(10), put_model("m", b"0", None), put_matrix(poisson(3), None)

        assert all(call.wait >= intake.SECONDS for call in calls)

    def test_it_is_given_up(self, plan: Any) -> None:
        next(plan)
        plan.send("u-1")
        for _ in range(_matrix_calls.PATIENCE):
            plan.throw(nnz.ConnectError("cut"))
            plan.send(0)

        with pytest.raises(nnz.ConnectError) as caught:
            plan.throw(nnz.ConnectError("cut"))
        assert caught.value.details["upload"] == "u-1"

    @pytest.mark.usefixtures("plan")
    def test_it_is_resumed(self, tmp_path: Path) -> None:
        """What is there is not sent again; who watches hears how far it is."""
        told: list[tuple[int, int]] = []
        resumed = _matrix_calls.in_pieces(
            tmp_path / "a.mtx.gz", None, lambda *sizes: told.append(sizes), "u-9"
        )

        look = next(resumed)
        piece = resumed.send(8)
        resumed.send(10)

        assert (look.method, look.path) == ("HEAD", "/v1/uploads/u-9")
        assert b"".join(piece.content.open()) == b"89"
        assert told == [(10, 10)]
