"""The whole worker in this process, on real matrices and a servable of the tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from service.waiting import SOON, until
from service.worker.servables import load_doubler, rows

from nnz_kernels.backends import Backend
from nnz_kernels.convert import csr_from_scipy
from nnz_service.algebra.files import write_resident
from nnz_service.dataplane import InlineDataplane
from nnz_service.errors import (
    ImpossibleError,
    InvalidInputError,
    MalformedError,
    NotFoundError,
    NotLoadedError,
    ServiceError,
    UnavailableError,
)
from nnz_service.jobs import MemoryStore, Status
from nnz_service.repository import Blob, MatrixRecord, Repository, bundles
from nnz_service.worker import Host, Toolbox, servables
from nnz_service.worker.quarantine import PATIENCE, Quarantine


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    made = Repository(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture
def matrix() -> Any:
    """Symmetric and positive definite, 40 x 40."""
    m = sp.random(40, 40, 0.1, random_state=1, format="csr")
    return (m @ m.T + 10 * sp.eye(40)).tocsr()


@pytest.fixture
def record(repository: Repository, matrix: Any) -> MatrixRecord:
    path = repository.blobs.staged()
    write_resident(csr_from_scipy(matrix), path)
    info = {
        "shape": matrix.shape, "nnz": matrix.nnz, "dtype": "FP64",
        "index_dtype": "INT32",
    }  # fmt: skip
    return repository.put_matrix(repository.blobs.adopt(path), info)[0]


def put_doubler(repository: Repository, text: str, name: str = "net") -> None:
    with repository.blobs.writer() as writer:
        writer.write(text.encode())
        blob: Blob = writer.commit()
    repository.put_model(name, None, blob, {})


@pytest.fixture
def jobs() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def plane(
    repository: Repository, jobs: MemoryStore
) -> AsyncIterator[InlineDataplane]:
    async for made in serve(repository, jobs):
        yield made


async def serve(
    repository: Repository, jobs: MemoryStore
) -> AsyncIterator[InlineDataplane]:
    toolbox = Toolbox(backend=Backend.REFERENCE, loaders={"model": load_doubler})
    host = Host(repository, jobs, toolbox)
    made = InlineDataplane(host)
    await made.start()
    assert await asyncio.to_thread(host.wait, SOON)
    yield made
    await made.close()
    assert not made.ready


class TestMatrices:
    async def test_found_in_the_catalog(
        self, plane: InlineDataplane, record: MatrixRecord, matrix: Any
    ) -> None:
        x = np.arange(40.0)

        reply = await plane.call("op", {"op": "spmv", "matrix": record.id}, {"x": x})

        np.testing.assert_allclose(reply.tensors["y"], matrix @ x, rtol=1e-12)
        assert set(reply.timings) == {"queue", "join", "compute"}

    async def test_spmm_and_transpose(
        self, plane: InlineDataplane, record: MatrixRecord, matrix: Any
    ) -> None:
        x = np.random.default_rng(0).standard_normal((40, 3))
        params = {"op": "spmm", "matrix": record.id, "transpose": True}

        reply = await plane.call("op", params, {"x": x})

        np.testing.assert_allclose(reply.tensors["y"], matrix.T @ x, rtol=1e-12)

    async def test_infer_takes_rows(
        self, plane: InlineDataplane, record: MatrixRecord, matrix: Any
    ) -> None:
        x = np.random.default_rng(0).standard_normal((3, 40))

        reply = await plane.call("infer", {"name": record.id}, {"x": x})

        assert reply.result == {"name": record.id, "version": "1", "batch": 3}
        np.testing.assert_allclose(reply.tensors["y"], (matrix @ x.T).T, rtol=1e-12)

    async def test_operands_of_another_type_are_converted(
        self, plane: InlineDataplane, record: MatrixRecord, matrix: Any
    ) -> None:
        params = {"op": "spmv", "matrix": record.id}

        reply = await plane.call("op", params, {"x": np.arange(40, dtype=np.int8)})

        np.testing.assert_allclose(reply.tensors["y"], matrix @ np.arange(40.0))

    @pytest.mark.parametrize(
        ("params", "x", "error", "why"),
        [
            ({"op": "spmv"}, np.ones(39), InvalidInputError, r"must be \[40\]"),
            ({"op": "spmm"}, np.ones(40), InvalidInputError, r"must be \[40, k\]"),
            ({"op": "spmv"}, np.ones(40, bool), None, ""),
            ({"op": "spmv", "transpose": 1}, np.ones(40), InvalidInputError, "true"),
            ({"op": "spmv", "matrix": "no"}, np.ones(40), NotFoundError, "'no'"),
            ({"op": "spmv", "matrix": 7}, np.ones(40), MalformedError, "as text"),
            ({"op": "fft"}, np.ones(40), NotFoundError, "'fft'"),
        ],
    )
    async def test_bad_input(
        self,
        plane: InlineDataplane,
        record: MatrixRecord,
        params: dict[str, Any],
        x: Any,
        error: type[ServiceError] | None,
        why: str,
    ) -> None:
        call = plane.call("op", {"matrix": record.id} | params, {"x": x})
        if error is None:
            await call
            return
        with pytest.raises(error, match=why):
            await call


class TestVectors:
    async def test_axpy_by_hand(self, plane: InlineDataplane) -> None:
        tensors = {
            "u.indices": np.array([2, 0]), "u.values": np.array([1.0, 5.0]),
            "v.indices": np.array([0, 9]), "v.values": np.array([2.0, 3.0]),
        }  # fmt: skip

        reply = await plane.call("op", {"op": "axpy", "r": -2}, tensors)

        assert reply.tensors["w.indices"].tolist() == [2, 0, 9]
        assert reply.tensors["w.values"].tolist() == [1.0, 1.0, -6.0]

    async def test_bad_input_is_not_a_fault(self, plane: InlineDataplane) -> None:
        with pytest.raises(InvalidInputError, match=r"u\.indices"):
            await plane.call("op", {"op": "dot"}, {"u": np.ones(1)})


class TestLoading:
    async def test_what_failed_is_tried_again(
        self,
        plane: InlineDataplane,
        record: MatrixRecord,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """After a moment: it may have been the machine, and not the matrix."""
        load, count = Toolbox.load, 0

        def failing(self: Toolbox, kind: str, path: Path) -> Any:
            nonlocal count
            count += 1
            if count == 1:
                raise MemoryError
            return load(self, kind, path)

        monkeypatch.setattr(Toolbox, "load", failing)
        asked = {"op": "spmv", "matrix": record.id}
        x = {"x": np.ones(40)}
        with pytest.raises(ServiceError, match="MemoryError"):
            await plane.call("op", asked, x)
        with pytest.raises(NotLoadedError, match="MemoryError"):
            await plane.call("op", asked, x)

        monkeypatch.setattr(servables, "_PAUSE", 0.0)

        assert (await plane.call("op", asked, x)).tensors["y"].shape == (40,)
        assert count == 2


class TestModels:
    async def test_wanted_ones_are_there_after_a_start(
        self, repository: Repository, jobs: MemoryStore
    ) -> None:
        put_doubler(repository, "8")
        put_doubler(repository, "broken inside")
        put_doubler(repository, "8", "unwanted")
        repository.set_wanted("unwanted", "1", False)

        async for plane in serve(repository, jobs):
            index = (await plane.call("index", {})).result["models"]
            assert [(e["name"], e["version"], e["state"]) for e in index] == [
                ("net", "1", "READY"),
                ("net", "2", "UNAVAILABLE"),
            ]
            reply = await plane.call("infer", {"name": "net"}, rows(2))
            assert reply.result["version"] == "1"
            assert reply.tensors["y"].tolist() == [[2.0] * 3] * 2
            with pytest.raises(NotLoadedError, match="broken inside"):
                await plane.call("infer", {"name": "net", "version": "2"}, rows(2))
            with pytest.raises(NotLoadedError, match="is not loaded; POST"):
                await plane.call("infer", {"name": "unwanted"}, rows(2))

    async def test_one_that_ends_the_worker_is_left_out(
        self, repository: Repository, jobs: MemoryStore
    ) -> None:
        put_doubler(repository, "9", "bad")
        put_doubler(repository, "8", "good")
        path = repository.model("bad").path
        note = repository.home / "run" / "loads-worker-0.json"
        for _ in range(PATIENCE):
            Quarantine(note).enter(path)

        async for plane in serve(repository, jobs):
            bad, good = (await plane.call("index", {})).result["models"]
            assert (bad["state"], good["state"]) == ("UNAVAILABLE", "READY")
            assert "the worker ended 2 times while it loaded" in bad["reason"]
            asked = {"kind": "model", "name": "bad", "version": "1", "path": str(path)}
            with pytest.raises(ImpossibleError, match="left out"):
                await plane.call("load", asked)
        assert repository.model("bad").wanted  # by the next server
        assert Quarantine(note).holds(path)

    async def test_one_that_goes_during_the_start(
        self,
        repository: Repository,
        jobs: MemoryStore,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Nor one that cannot be looked up keeps the others away."""
        for name in ("a", "b", "c"):
            put_doubler(repository, "8", name)
        find = Repository.model

        def gone(self: Repository, name: str, version: str | None = None) -> Any:
            if name == "a":
                raise NotFoundError("removed meanwhile")
            if name == "b":
                raise OSError("no descriptors")
            return find(self, name, version)

        monkeypatch.setattr(Repository, "model", gone)

        async for plane in serve(repository, jobs):
            assert plane.ready
            index = (await plane.call("index", {})).result["models"]
            assert [(e["name"], e["state"]) for e in index] == [
                ("b", "UNAVAILABLE"),
                ("c", "READY"),
            ]

    async def test_load_metadata_explain_stats_unload(
        self, plane: InlineDataplane, repository: Repository
    ) -> None:
        put_doubler(repository, "8")
        path = str(repository.model("net").path)
        params = {"kind": "model", "name": "net", "version": "1", "path": path}

        loaded = (await plane.call("load", params)).result
        again = (await plane.call("load", params)).result
        described = (await plane.call("metadata", {"name": "net"})).result
        await plane.call("infer", {"name": "net", "outputs": ["y"]}, rows(4))
        explained = (await plane.call("explain", {"name": "net"})).result
        stats = (await plane.call("stats", {"name": "net"})).result

        assert loaded == again == described
        assert described["versions"] == ["1"]
        assert explained == {"rows": [{"name": "double", "op": "Mul"}]}
        assert stats["model_stats"][0]["inference_count"] == 4
        assert (await plane.call("unload", {"name": "net"})).result == {"unloaded": 1}
        with pytest.raises(UnavailableError, match="not loaded"):
            await plane.call("metadata", {"name": "net"})
        with pytest.raises(NotFoundError):
            await plane.call("stats", {"name": "net"})

    async def test_bad_requests(
        self, plane: InlineDataplane, repository: Repository
    ) -> None:
        put_doubler(repository, "8")
        path = str(repository.model("net").path)
        params = {"kind": "model", "name": "net", "version": "1", "path": path}
        await plane.call("load", params)

        with pytest.raises(InvalidInputError, match=r"must be \[n, 3\]"):
            await plane.call("infer", {"name": "net"}, {"x": np.ones((1, 4))})
        with pytest.raises(InvalidInputError, match=r"outputs \['z'\] are unknown"):
            await plane.call("infer", {"name": "net", "outputs": ["z"]}, rows(1))
        with pytest.raises(MalformedError, match="'tree'"):
            await plane.call("load", params | {"kind": "tree"})
        with pytest.raises(NotFoundError, match="no call 'dance'"):
            await plane.call("dance", {})


class TestJobs:
    async def test_cg(
        self,
        plane: InlineDataplane,
        repository: Repository,
        jobs: MemoryStore,
        record: MatrixRecord,
        matrix: Any,
    ) -> None:
        b = np.random.default_rng(0).standard_normal(40)
        inputs = bundles.save(repository.blobs, {"b": b})
        job = jobs.submit("cg", {"matrix": record.id, "rtol": 1e-10}, inputs.sha256)

        await plane.call("wake", {})

        await until(lambda: jobs.get(job.id).status.ended)
        end = jobs.get(job.id)
        assert (end.status, end.error) == (Status.SUCCEEDED, None)
        assert end.result is not None
        assert end.result["status"] == "converged"
        assert end.result_sha is not None
        x = bundles.load(repository.blobs.path(end.result_sha))["x"]
        residual = np.linalg.norm(matrix @ x - b) / np.linalg.norm(b)
        assert residual <= 1e-10

    async def test_matrix_is_gone(
        self, plane: InlineDataplane, jobs: MemoryStore
    ) -> None:
        job = jobs.submit("cg", {"matrix": "m-0000000000000000"})

        await plane.call("wake", {})

        await until(lambda: jobs.get(job.id).status.ended)
        end = jobs.get(job.id)
        assert end.status is Status.FAILED
        assert "m-0000000000000000" in str(end.error)


async def test_devices(plane: InlineDataplane) -> None:
    devices = (await plane.call("devices", {})).result["devices"]

    assert {row["backend"] for row in devices} == {"reference", "cpu", "cuda"}
    assert next(r for r in devices if r["backend"] == "reference")["available"]
