"""The SDK against the real application inside this process; both clients."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import scipy.sparse.linalg as spla

import nnz
from nnz import AsyncClient, Client

DIGITS = Path(__file__).parents[2] / "deploy" / "demo" / "digits_sparse.onnx"
#: The founding example: u - 2 v keeps u's order, then what only v has.
U = ([0, 1, 3, 7, 10, 11, 12, 14], [1.0, 6, -3, 7, -10, -3, -7, -8])
V = ([0, 1, 5, 6, 7, 11], [-10.0, 0, 3, -3, 2, 7])


def poisson(side: int) -> sp.csr_array:
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    eye = sp.eye_array(side)
    return sp.csr_array(sp.kron(line, eye) + sp.kron(eye, line))


@pytest.fixture(scope="module", params=["sync", "async"])
def client(request: pytest.FixtureRequest, blocking: Any) -> Iterator[Any]:
    """One server for all tests of a kind; they use names of their own."""
    if request.param == "sync":
        with Client.local(threads=1) as own:
            yield own
        return
    with asyncio.Runner() as runner:
        inner = AsyncClient.local(threads=1)
        yield blocking(inner, runner)
        runner.run(inner.close())


@pytest.fixture(scope="module")
def model(client: Any) -> Any:
    return client.models.put("digits", DIGITS)


class TestLocal:
    def test_it_prints_nothing_and_leaves_nothing(self, tmp_path: Path) -> None:
        """Also when it is never closed, as in a notebook."""
        code = (
            "import nnz\n"
            "client = nnz.Client.local(threads=1)\n"
            "try:\n"
            "    client.infer('nobody', {'x': [1.0]})\n"
            "except nnz.NotFoundError:\n"
            "    print('done')\n"
        )

        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

        assert (done.stdout, done.stderr) == ("done\n", "")
        assert list(tmp_path.glob("nnz-*")) == []


class TestServer:
    def test_says_what_it_is(self, client: Any) -> None:
        assert client.server.ready()
        assert client.server.metadata().name == "nnz"
        assert "binary_tensor_data" in client.server.metadata().extensions
        assert "cpu" in {row["backend"] for row in client.server.devices()}
        assert client.server.stats()


class TestModels:
    def test_life_of_a_model(self, client: Any) -> None:
        model = client.models.put("life", DIGITS)
        again = client.models.put("life", DIGITS.read_bytes())

        assert (model.version, again.version) == ("1", "1")
        assert model.info.sha256 == again.info.sha256
        assert [spec.shape for spec in model.inputs] == [(None, 1, 16, 16)]

        found = client.models.get("life").info
        assert found.versions == ("1",)
        assert any(row["density"] and row["density"] < 0.5 for row in found.plan)
        assert ("life", "READY") in {(m.name, m.state) for m in client.models.list()}

        assert client.models.unload("life").state == "UNAVAILABLE"
        assert client.models.load("life").state == "READY"
        assert model.infer(np.zeros((1, 1, 16, 16), np.float32))

        client.models.delete("life")
        with pytest.raises(nnz.NotFoundError, match="life"):
            client.models.get("life")

    def test_infer_in_every_form(self, client: Any, model: Any) -> None:
        x = np.random.default_rng(0).random((5, 1, 16, 16), np.float32)
        (name,) = (spec.name for spec in model.outputs)

        one = model.infer(x)[name]

        assert one.shape == (5, 10)
        assert one.flags.writeable
        others = [
            model.infer({"x": x}),
            model.infer(x.tolist()),
            model.infer(np.asfortranarray(x), outputs=[name]),
            client.infer("digits", x),
            client.infer("digits", {"x": x}, outputs=[name], version=1),
        ]
        for other in others:
            np.testing.assert_allclose(other[name], one, rtol=1e-5, atol=1e-6)

    def test_a_broken_file(self, client: Any) -> None:
        with pytest.raises(nnz.ImpossibleError) as caught:
            client.models.put("broken", b"this is no model")

        assert caught.value.request_id

    def test_a_wrong_input(self, model: Any) -> None:
        with pytest.raises(nnz.ImpossibleError, match="16"):
            model.infer(np.zeros((1, 1, 8, 8), np.float32))


class TestMatrices:
    @pytest.fixture(params=["f4", "f8"])
    def pair(self, client: Any, request: pytest.FixtureRequest) -> Any:
        matrix = sp.random_array(
            (40, 30), density=0.2, rng=np.random.default_rng(1), dtype=request.param
        ).tocsr()
        return client.matrices.put(matrix), matrix

    def test_products_are_scipys(self, pair: Any) -> None:
        remote, local = pair
        rng = np.random.default_rng(2)
        x, y = rng.random(30).astype(local.dtype), rng.random(40).astype(local.dtype)
        many, other = rng.random((30, 7)), rng.random((40, 3))
        close = {"rtol": 1e-5, "atol": 1e-5}

        np.testing.assert_allclose(remote @ x, local @ x, **close)
        np.testing.assert_allclose(remote.T @ y, local.T @ y, **close)
        np.testing.assert_allclose(remote @ many, local @ many, **close)
        np.testing.assert_allclose(remote.T @ other, local.T @ other, **close)
        np.testing.assert_allclose(y @ remote, y @ local, **close)
        assert (remote @ x).dtype == local.dtype

    def test_life_of_a_matrix(self, client: Any) -> None:
        matrix = sp.eye_array(9, format="csr") * 3.0

        put = client.matrices.put(matrix, name="nine")
        again = client.matrices.put(matrix.tocoo())

        assert put.id == again.id
        assert (put.shape, put.nnz, put.dtype) == ((9, 9), 9, np.float64)
        assert client.matrices.get(put.id).info.name == "nine"
        assert put.id in {info.id for info in client.matrices.list()}
        put.delete()
        with pytest.raises(nnz.NotFoundError):
            client.matrices.get(put.id)

    def test_every_file_format_is_the_same_matrix(
        self, client: Any, tmp_path: Path
    ) -> None:
        matrix = sp.random_array(
            (12, 8), density=0.3, rng=np.random.default_rng(4), format="csr"
        )
        sp.save_npz(tmp_path / "a.npz", matrix)
        scipy.io.mmwrite(tmp_path / "a.mtx", matrix, precision=17)
        packed = gzip.compress((tmp_path / "a.mtx").read_bytes())
        (tmp_path / "a.mtx.gz").write_bytes(packed)

        direct = client.matrices.put(matrix)
        files = [client.matrices.put(tmp_path / f"a{end}") for end in (".npz", ".mtx")]
        files.append(client.matrices.put(str(tmp_path / "a.mtx.gz")))

        assert {found.id for found in files} == {direct.id}

    def test_infer_on_a_matrix(self, client: Any) -> None:
        matrix = client.matrices.put(sp.diags_array([1.0, 2.0, 3.0]))

        out = client.infer(matrix.id, np.ones((2, 3)))

        assert out["y"].tolist() == [[1, 2, 3], [1, 2, 3]]

    def test_a_broken_file(self, client: Any, tmp_path: Path) -> None:
        (tmp_path / "a.mtx").write_text("%%MatrixMarket nonsense\n1 1 1\n")

        with pytest.raises(nnz.ImpossibleError):
            client.matrices.put(tmp_path / "a.mtx")


class TestOps:
    def test_the_founding_example(self, client: Any) -> None:
        w = client.ops.axpy(U, -2, V)

        pairs = list(zip(w.indices.tolist(), w.values.tolist(), strict=True))
        assert pairs == [
            (0, 21), (1, 6), (3, -3), (7, 3), (10, -10),
            (11, -17), (12, -7), (14, -8), (5, -6), (6, 6),
        ]  # fmt: skip

    def test_dot(self, client: Any) -> None:
        assert client.ops.dot(U, V) == -10 + 7 * 2 - 3 * 7

    def test_scipy_vectors(self, client: Any) -> None:
        u = sp.coo_array(np.array([0, 1.0, 0, 2]))
        v = sp.csr_array(np.array([[1.0, 1.0, 0, 0]]))

        w = client.ops.axpy(u, 3, v)

        assert w.size == 4
        dense = np.zeros(4)
        dense[w.indices] = w.values
        assert dense.tolist() == [3, 4, 0, 2]

    def test_policies(self, client: Any) -> None:
        gone = client.ops.axpy(([1], [2.0]), -1, ([1], [2.0]), zeros="drop_exact")

        assert gone.indices.size == 0
        with pytest.raises(nnz.NnzError, match=r"duplicate|twice"):
            client.ops.axpy(([1, 1], [1.0, 1.0]), 1, V, duplicates="error")


class TestJobs:
    def test_cg(self, client: Any) -> None:
        matrix = poisson(30)
        b = np.ones(900)
        remote = client.matrices.put(matrix)
        told: list[Any] = []

        job = client.jobs.cg(remote, b, rtol=1e-10, preconditioner="jacobi")
        result = job.wait(timeout=60, progress=told.append).result()

        assert result.converged
        assert result.iterations > 10
        assert told[-1].ended
        residual = np.linalg.norm(b - matrix @ result.x) / np.linalg.norm(b)
        assert residual <= 1e-10
        np.testing.assert_allclose(result.relative_residual, residual, rtol=0.5)
        assert client.jobs.get(job.id).result().x.tolist() == result.x.tolist()
        assert job.id in {found.id for found in client.jobs.list(limit=5)}

        job.delete()
        with pytest.raises(nnz.NotFoundError):
            client.jobs.get(job.id)

    def test_an_idempotency_key_makes_one_job(self, client: Any) -> None:
        remote = client.matrices.put(poisson(5))

        jobs = [
            client.jobs.cg(remote, np.ones(25), idempotency_key="contract-once")
            for _ in range(2)
        ]

        assert jobs[0].id == jobs[1].id
        with pytest.raises(nnz.StatusError) as caught:
            client.jobs.cg(remote, np.zeros(25), idempotency_key="contract-once")
        assert caught.value.status in (409, 422)

    def test_a_guess_and_a_limit(self, client: Any) -> None:
        matrix = poisson(20)
        remote = client.matrices.put(matrix)
        x = np.random.default_rng(5).random(400)
        b = matrix @ x

        exact = client.jobs.cg(remote.id, b, x0=x).result(timeout=60)
        short = client.jobs.cg(remote, b, rtol=1e-14, maxiter=3).result(timeout=60)

        assert (exact.status, exact.iterations) == ("converged", 0)
        assert (short.status, short.iterations) == ("iteration_limit", 3)
        assert not short.converged

    def test_cancel(self, client: Any) -> None:
        remote = client.matrices.put(poisson(300))
        job = client.jobs.cg(remote, np.ones(90_000), rtol=1e-300, maxiter=10**9)

        job.cancel()
        job.wait(timeout=60)

        assert job.status == "cancelled"
        with pytest.raises(nnz.JobCancelledError):
            job.result()

    def test_events_and_lists(self, client: Any) -> None:
        """A job is followed while it runs, also without a network."""
        remote = client.matrices.put(poisson(300))
        job = client.jobs.cg(remote, np.ones(90_000), rtol=1e-300, maxiter=10**9)
        told = []

        for info in job.events():
            told.append(info)
            if info.progress.get("iterations", 0) and not info.cancel_requested:
                client.jobs.cancel(job.id)

        assert told[-1].status == job.status == "cancelled"
        revisions = [info.revision for info in told]
        assert revisions == sorted(set(revisions))
        assert len(told) > 2
        found = client.jobs.list(status="cancelled", kind="cg", limit=1)
        assert [one.id for one in found] == [job.id]
        assert job.id not in {one.id for one in client.jobs.list(before=job.id)}

    def test_who_leaves_early_leaves_nothing(self, client: Any) -> None:
        remote = client.matrices.put(poisson(300))
        job = client.jobs.cg(remote, np.ones(90_000), rtol=1e-300, maxiter=10**9)

        events = job.events()
        next(events)
        events.close()

        assert job.cancel().wait(timeout=60).status == "cancelled"

    def test_a_job_that_cannot_be(self, client: Any) -> None:
        with pytest.raises(nnz.StatusError):
            client.jobs.cg("m-0000000000000000", [1.0])


class TestScipy:
    def test_its_eigenvalues_and_least_squares(self) -> None:
        square = poisson(8)
        tall = sp.random_array(
            (40, 12), density=0.4, rng=np.random.default_rng(8), format="csr"
        )
        b = np.ones(40)

        with Client.local(threads=1) as client:
            largest = spla.eigsh(
                client.matrices.put(square),
                k=1,
                return_eigenvectors=False,
                v0=np.ones(64),
            )
            x = spla.lsqr(client.matrices.put(tall), b, atol=1e-12, btol=1e-12)[0]

        expected = 4 + 4 * np.cos(np.pi / 9)  # the five-point stencil's, by formula
        np.testing.assert_allclose(largest, [expected], rtol=1e-10)
        dense = np.linalg.lstsq(tall.toarray(), b, rcond=None)[0]
        np.testing.assert_allclose(x, dense, rtol=1e-6, atol=1e-9)

    def test_its_solver_takes_the_handle(self) -> None:
        matrix = poisson(12)
        b = np.ones(144)

        with Client.local(threads=1) as client:
            remote = client.matrices.put(matrix)
            x, info = spla.cg(remote, b, rtol=1e-8)
            y, _ = spla.cg(remote.as_linear_operator(), b, rtol=1e-8)

        assert info == 0
        np.testing.assert_array_equal(x, y)
        assert np.linalg.norm(b - matrix @ x) <= 1e-7 * np.linalg.norm(b)


class TestTogether:
    def test_threads_may_share_a_client(self) -> None:
        matrix = poisson(20)
        vectors = np.random.default_rng(7).random((64, 400))

        with Client.local(threads=1) as client, ThreadPoolExecutor(16) as pool:
            remote = client.matrices.put(matrix)
            products = list(pool.map(remote.matvec, vectors))

        np.testing.assert_allclose(products, vectors @ matrix.T, rtol=1e-12)

    async def test_many_products_at_once(self) -> None:
        matrix = poisson(20)
        vectors = np.random.default_rng(6).random((32, 400))

        async with AsyncClient.local(threads=1) as client:
            remote = await client.matrices.put(matrix)
            products = await asyncio.gather(*(remote.matvec(v) for v in vectors))

        np.testing.assert_allclose(products, vectors @ matrix.T, rtol=1e-12)

    def test_a_closed_client_is_closed_for_good(self) -> None:
        client = Client.local(threads=1)
        client.close()
        client.close()

        start = time.monotonic()
        with pytest.raises(RuntimeError, match="closed"):
            client.server.metadata()
        assert time.monotonic() - start < 1
