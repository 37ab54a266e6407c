"""A real server: starts, survives the loss of each process, ends without remains."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
import scipy.sparse as sp
import structlog
from onnx_graphs import graph, node
from service.processes import (
    SOON,
    START_SECONDS,
    Server,
    alive,
    children,
    living,
    until,
)

from nnz import Client
from nnz_service import supervisor
from nnz_service.jobs import SqlStore
from nnz_service.keys import KeyFile, Scope
from nnz_service.scratch import hold
from nnz_service.settings import Settings
from nnz_service.supervisor.places import allow_descriptors, sweep

pytestmark = pytest.mark.timeout(900)  # the first start may compile every kernel
slow = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "a home")
    made.wait()
    yield made
    made.close()


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    """The supervisor sets up logging to a standard error that ends with the test."""
    yield
    structlog.reset_defaults()


class TestSweep:
    def test_only_what_nobody_holds(self, tmp_path: Path) -> None:
        names = ("nnz-run-dead", "nnz-run-held", "nnz-run-young", "nnz-other")
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / "worker").touch()
            if name != "nnz-run-young":
                os.utime(tmp_path / name, (0, 0))
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (tmp_path / "nnz-run-link").symlink_to(elsewhere)
        os.utime(tmp_path / "nnz-run-link", (0, 0), follow_symlinks=False)

        held = hold(tmp_path / "nnz-run-held")
        sweep(tmp_path)
        os.close(held)

        left = {path.name for path in tmp_path.iterdir()}
        assert left == {*names, "elsewhere", "nnz-run-link"} - {"nnz-run-dead"}


@pytest.mark.usefixtures("logs_as_before")
def test_as_many_files_open_as_there_may_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 700), hard))

        allow_descriptors()

        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 1 << 16)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestRefusals:
    def test_open_door(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings = Settings(home=tmp_path / "home", host="0.0.0.0", api_key=None)  # noqa: S104 - to be refused

        assert supervisor.serve(settings) == 1

        assert "refusing to listen on 0.0.0.0 without a key" in capsys.readouterr().err
        assert not (tmp_path / "home").exists()

    def test_keys_are_damaged(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Who starts a server sees at once that nobody could come in."""
        (tmp_path / "keys.json").write_bytes(b"{")

        assert supervisor.serve(Settings(home=tmp_path, port=0, api_key="k")) == 1

        assert "keys.json is no file of keys" in capsys.readouterr().err

    def test_keys_that_open_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = KeyFile(tmp_path)
        file.revoke(file.create("gone", frozenset({Scope.ADMIN}))[0].id)

        assert supervisor.serve(Settings(home=tmp_path, host="0.0.0.0")) == 1  # noqa: S104 - to be refused

        assert "without a key" in capsys.readouterr().err

    def test_every_web_page(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert supervisor.serve(Settings(home=tmp_path, port=0, cors_origins="*")) == 1

        assert "refusing NNZ_CORS_ORIGINS=* without a key" in capsys.readouterr().err

    def test_home_cannot_be_written(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "file"
        file.touch()

        assert supervisor.serve(Settings(home=file, port=0)) == 1

        told = capsys.readouterr().err
        assert told.startswith(f"nnz: cannot write to {file}: Not a directory")
        assert "--home" in told

    def test_port_is_taken(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]

            assert supervisor.serve(Settings(home=tmp_path, port=port)) == 1

        assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err

    def test_port_of_grpc_is_taken(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            settings = Settings(home=tmp_path, port=0, grpc_port=port)

            assert supervisor.serve(settings) == 1

        assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err

    def test_catalog_is_damaged(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "catalog.sqlite").write_bytes(b"not a database" * 100)

        assert supervisor.serve(Settings(home=tmp_path, port=0)) == 1

        assert "file is not a database" in capsys.readouterr().err


@slow
class TestLife:
    def test_second_server_on_the_same_home(self, server: Server) -> None:
        second = Server(server.home)

        assert second.process.wait(SOON) == 1
        second.close()
        assert server.ready()

    def test_banner_and_state(self, server: Server) -> None:
        url = server.url
        assert server.state == {"url": url, "pid": server.process.pid}

        server.process.send_signal(signal.SIGTERM)

        assert server.process.stdout is not None
        assert f"serves {url} (without a key)" in server.process.stdout.read()

    def test_worker_is_replaced(self, server: Server) -> None:
        first = server.child("worker")

        os.kill(first, signal.SIGKILL)

        until(lambda: not server.ready())
        until(lambda: children(server.process.pid).get("nnz_service.worker_main"))
        server.wait()
        assert server.child("worker") != first
        text = httpx2.get(f"{server.url}/metrics").text
        assert 'nnz_worker_restarts_total{process="worker"} 1.0' in text
        assert 'nnz_door_restarts_total{process="web"} 0.0' in text
        processes = httpx2.get(f"{server.url}/v1/stats").json()["processes"]
        assert processes["restarts"] == {"worker": 1, "web": 0}

    def test_web_is_replaced(self, server: Server) -> None:
        """
        The supervisor holds the listening socket, so callers wait and are answered.
        """
        first = server.child("web")

        os.kill(first, signal.SIGKILL)
        until(lambda: not alive(first))

        answer = httpx2.get(f"{server.url}/v2/health/live", timeout=SOON)
        assert answer.status_code == 200
        server.wait()
        text = httpx2.get(f"{server.url}/metrics").text
        assert 'nnz_door_restarts_total{process="web"} 1.0' in text

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_ends_cleanly(self, server: Server, number: signal.Signals) -> None:
        pids = [server.child("worker"), server.child("web")]
        started = time.monotonic()

        server.process.send_signal(number)

        assert server.process.wait(SOON) == 0
        assert time.monotonic() - started < 8
        assert not any(map(alive, pids))
        assert server.state == {}

    def test_a_worker_ends_when_it_is_told(self, server: Server) -> None:
        """Its pool of threads keeps no process that has closed everything."""
        worker = server.child("worker")

        os.kill(worker, signal.SIGTERM)

        until(lambda: not alive(worker), 4.0)

    def test_children_do_not_outlive_a_killed_supervisor(self, server: Server) -> None:
        pids = [server.child("worker"), server.child("web")]

        server.process.kill()

        until(lambda: not any(map(alive, pids)))

    def test_ends_while_it_starts(self, tmp_path: Path) -> None:
        server = Server(tmp_path / "home")
        server.child("worker")

        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(SOON) == 0
        server.close()


@slow
class TestJobs:
    def test_survive_the_kill_of_everything(self, tmp_path: Path) -> None:
        """
        A job goes on from its checkpoint under a new worker, then a new server.
        """
        matrix = poisson(500)
        b = np.random.default_rng(0).standard_normal(matrix.shape[0])
        first = Server(tmp_path / "home")
        try:
            first.wait()
            with Client(first.url) as client:
                job = client.jobs.cg(client.matrices.put(matrix), b, rtol=1e-12).id
            store = SqlStore(tmp_path / "home" / "catalog.sqlite")
            until(lambda: store.get(job).checkpoint)
            os.kill(first.child("worker"), signal.SIGKILL)
            until(lambda: store.get(job).attempts == 2, START_SECONDS)
            assert store.get(job).checkpoint is not None
            first.process.kill()
        finally:
            first.close()
        second = Server(tmp_path / "home")
        try:
            second.wait()
            with Client(second.url) as client:
                solved = client.jobs.get(job).result(START_SECONDS)
        finally:
            second.close()

        assert store.get(job).attempts == 3
        store.close()
        residual = np.linalg.norm(matrix @ solved.x - b) / np.linalg.norm(b)
        assert residual <= 1.01e-12


def poisson(n: int) -> sp.csr_array:
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    square = sp.kron(sp.eye_array(n), line) + sp.kron(line, sp.eye_array(n))
    return sp.csr_array(square)


@slow
def test_a_second_worker_serves_while_the_first_is_replaced(tmp_path: Path) -> None:
    """Every worker holds every model, so none is missed."""
    home, model = tmp_path / "home", tmp_path / "m.onnx"
    weights = {"w": np.eye(3, dtype=np.float32)}
    x = {"x": (np.float32, ("n", 3))}
    model.write_bytes(graph([node("MatMul", "x w")], x, weights))
    server = Server(home, workers=2)
    try:
        until(lambda: len(living(server.process.pid)) == 3)
        server.wait()
        put = httpx2.put(
            f"{server.url}/v1/models/m", content=model.read_bytes(), timeout=30
        )
        assert put.status_code in (200, 201), put.text
        body = {
            "inputs": [
                {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
            ]
        }

        def infer() -> int:
            url = f"{server.url}/v2/models/m/infer"
            answer = httpx2.post(url, json=body, timeout=SOON)
            if answer.status_code == 200:
                assert answer.json()["outputs"][0]["data"] == [1, 2, 3]
            return answer.status_code

        assert [infer() for _ in range(6)] == [200] * 6
        workers = [p for module, p in living(server.process.pid) if "worker" in module]
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: not alive(workers[0]))

        assert [infer() for _ in range(10)] == [200] * 10
        until(lambda: len(living(server.process.pid)) == 3)
        assert server.ready()
        stats = httpx2.get(f"{server.url}/v2/models/m/stats").json()["model_stats"]
        assert stats[0]["inference_count"] >= 10
    finally:
        server.close()
