"""The worker as a process of its own: every kind of call, its death, its successor."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.sparse as sp
from onnx import TensorProto, helper
from service.processes import START_SECONDS, environment
from service.waiting import until

from nnz_kernels.convert import csr_from_scipy
from nnz_service.algebra.files import write_resident
from nnz_service.dataplane import SocketDataplane
from nnz_service.errors import DeadlineError, WorkerLostError
from nnz_service.repository import MatrixRecord, Repository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MATRIX = sp.random(300, 200, 0.05, random_state=3, format="csr")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a home"


@pytest.fixture
def record(home: Path) -> MatrixRecord:
    repository = Repository(home)
    path = repository.blobs.staged()
    write_resident(csr_from_scipy(MATRIX), path)
    info = {
        "shape": MATRIX.shape, "nnz": MATRIX.nnz, "dtype": "FP64",
        "index_dtype": "INT32",
    }  # fmt: skip
    made, _ = repository.put_matrix(repository.blobs.adopt(path), info)
    repository.close()
    return made


@pytest.fixture
def model(tmp_path: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    onnx.save(made, str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


class Workers:
    """Worker processes at one socket, one after the other."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.socket = folder / "worker"
        self._home = home
        self.process = self._start()

    def replace(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        where = ["--home", str(self._home), "--socket", str(self.socket)]
        command = [sys.executable, "-m", "nnz_service.worker_main", *where]
        return subprocess.Popen(command, env=environment())


@pytest.fixture
def workers(home: Path) -> Iterator[Workers]:
    with tempfile.TemporaryDirectory(prefix="nnz-test-") as folder:
        made = Workers(home, Path(folder))
        yield made
        made.process.kill()
        made.process.wait()


@pytest.fixture
async def plane(workers: Workers) -> AsyncIterator[SocketDataplane]:
    made = SocketDataplane(workers.socket)
    await made.start()
    await until(lambda: made.ready, START_SECONDS)
    yield made
    await made.close()


async def test_every_kind(
    plane: SocketDataplane, record: MatrixRecord, model: Path
) -> None:
    async def ask(call: str, /, **params: Any) -> dict[str, Any]:
        return (await plane.call(call, params)).result

    assert (await ask("ping"))["ready"] is True
    assert len((await ask("devices"))["devices"]) == 3
    loaded = await ask("load", kind="model", name="net", version="1", path=str(model))
    assert loaded == await ask("metadata", name="net")
    assert loaded["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    x = np.array([[1, -2, 3, -4]], np.float32)
    reply = await plane.call("infer", {"name": "net"}, {"x": x})
    assert reply.tensors["y"].tolist() == [[1, 0, 3, 0]]
    assert (await ask("explain", name="net"))["rows"]
    v = np.arange(200.0)
    params = {"op": "spmv", "matrix": record.id}
    y = (await plane.call("op", params, {"x": v})).tensors["y"]
    np.testing.assert_allclose(y, MATRIX @ v)
    index = await ask("index")
    assert [row["state"] for row in index["models"]] == ["READY", "READY"]
    stats = (await ask("stats", name="net"))["model_stats"]
    assert stats[0]["inference_count"] == 1
    assert await ask("wake") == {}
    assert await ask("unload", name="net") == {"unloaded": 1}


async def test_concurrent_products_share_one(
    plane: SocketDataplane, record: MatrixRecord
) -> None:
    vectors = np.random.default_rng(0).standard_normal((64, 200))
    params = {"op": "spmv", "matrix": record.id}

    replies = await asyncio.gather(
        *(plane.call("op", params, {"x": x}) for x in vectors)
    )

    for x, reply in zip(vectors, replies, strict=True):
        np.testing.assert_allclose(reply.tensors["y"], MATRIX @ x)
    (stats,) = (await plane.call("stats", {})).result["model_stats"]
    assert stats["inference_count"] == 64
    assert stats["execution_count"] < 64


async def test_death_and_successor(
    plane: SocketDataplane, workers: Workers, record: MatrixRecord
) -> None:
    params = {"op": "spmv", "matrix": record.id}
    x = {"x": np.ones(200)}
    os.kill(workers.process.pid, signal.SIGSTOP)
    with pytest.raises(DeadlineError):
        await plane.call("op", params, x, timeout=0.2)
    lost = asyncio.create_task(plane.call("op", params, x))
    await asyncio.sleep(0)

    await asyncio.to_thread(workers.replace)

    with pytest.raises(WorkerLostError):
        await lost
    await until(lambda: plane.ready, START_SECONDS)
    reply = await plane.call("op", params, x)
    np.testing.assert_allclose(reply.tensors["y"], MATRIX @ x["x"])


async def test_ends_on_sigterm(plane: SocketDataplane, workers: Workers) -> None:
    workers.process.terminate()

    assert await asyncio.to_thread(workers.process.wait, 10) == 0
    assert not workers.socket.exists()
    await until(lambda: not plane.ready)
