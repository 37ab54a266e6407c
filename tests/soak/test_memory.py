"""What is unloaded goes back to the machine, and what a worker held that was killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx2
import numpy as np
import pytest
import scipy.sparse as sp
from onnx_graphs import graph, node
from service.processes import Server, living, resident, until
from service.web.wire import infer, read, send
from soak.conftest import Serve, put

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MIB = 1 << 20
#: Bytes by which processes may differ from what they were. A model's load works with
#: several times its size, of which malloc keeps the end of the thread's heap.
SLACK, MODEL_SLACK = 24 * MIB, 64 * MIB
N = 200_000
MATRIX_BYTES = 25 * N * 12


def held(server: Server) -> dict[str, int]:
    """Bytes of each process of a server."""
    pids = dict(living(server.process.pid)) | {"supervisor": server.process.pid}
    return {name: resident(pid) for name, pid in pids.items()}


def files(pid: int) -> int:
    """Open files, sockets and shared memory of a process."""
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


def banded() -> sp.csr_array:
    """25 nonzeros a row, which takes long enough to notice and not longer."""
    shape = (N, N)
    return sp.csr_array(sp.diags_array([1.0] * 25, offsets=range(25), shape=shape))


def put_matrix(server: Server) -> str:
    return put(server, banded())


def use_matrix(http: httpx2.Client, name: str) -> None:
    x = np.ones(N)
    y = read(send(http, "/v1/ops/spmv", {"x": x}, {"matrix": name}))["y"]
    assert y[0] == 25.0


def put_model(server: Server) -> str:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3000, 6000)).astype(np.float32)
    weights[rng.random(weights.shape) < 0.9] = 0.0
    x = {"x": (np.float32, ("n", 3000))}
    file = graph([node("MatMul", "x w")], x, {"w": weights})
    url = f"{server.url}/v1/models/large"
    assert httpx2.put(url, content=file, timeout=120).status_code == 201
    return "large"


def use_model(http: httpx2.Client, name: str) -> None:
    x = np.ones((16, 3000), np.float32)
    assert read(infer(http, name, {"x": x}))["y"].shape == (16, 6000)


Put, Use = Callable[[Server], str], Callable[[httpx2.Client, str], None]


@pytest.mark.parametrize(
    ("put", "use", "nbytes", "slack"),
    [
        (put_matrix, use_matrix, MATRIX_BYTES, SLACK),
        (put_model, use_model, 12 * MIB, MODEL_SLACK),
    ],
    ids=["matrix", "model"],
)
def test_memory_comes_back(
    serve: Serve, put: Put, use: Use, nbytes: int, slack: int
) -> None:
    """Unloaded in the same worker; loaded by the next one after it was killed."""
    server = serve()
    before, worker = held(server), server.child("worker")
    with httpx2.Client(base_url=server.url, timeout=60) as http:
        name = put(server)
        for _ in range(20):
            use(http, name)
        loaded, opened = held(server), files(worker)

        change(http, name, "unload")
        unloaded, closed = held(server), files(worker)

        for _ in range(5):
            change(http, name, "load")
            change(http, name, "unload")
        again = held(server)

        change(http, name, "load")
        os.kill(worker, signal.SIGKILL)
        until(lambda: server.child("worker") != worker and server.ready())
        use(http, name)
        reloaded = held(server)
        change(http, name, "unload")
        recycled = held(server)

    story = before, loaded, unloaded, again, reloaded, recycled
    print("; ".join(str({k: v // MIB for k, v in one.items()}) for one in story))
    key = "nnz_service.worker_main"
    assert loaded[key] > before[key] + nbytes
    assert closed <= opened
    for end in (unloaded, again, recycled):
        assert end[key] < before[key] + slack
        assert sum(end.values()) < sum(before.values()) + slack + SLACK
    assert again[key] < unloaded[key] + SLACK
    assert reloaded[key] < loaded[key] + SLACK


def change(http: httpx2.Client, name: str, verb: str) -> None:
    assert http.post(f"/v2/repository/models/{name}/{verb}").status_code == 200
