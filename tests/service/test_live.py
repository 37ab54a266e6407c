"""What is changed in a running server outlives its web process, not the server."""

from __future__ import annotations

import os
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import orjson
import pytest
import structlog
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
import tritonclient.utils.shared_memory as shm
from service.processes import Server, alive, until
from service.web.wire import WEIGHTS, linear
from tritonclient.utils import InferenceServerException

from nnz_service import supervisor
from nnz_service.settings import Settings

X = np.array([[1.0, 2.0, 3.0]], np.float32)


@pytest.fixture
def memory() -> Iterator[Any]:
    """A shared memory object with x at its beginning and room for y behind it."""
    handle = shm.create_shared_memory_region("r", f"nnz-{uuid.uuid4().hex}", 24)
    shm.set_shared_memory_region(handle, [X])
    yield handle
    shm.destroy_shared_memory_region(handle)


def client(server: Server) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(server.url.removeprefix("http://"))


def infer(server: Server, memory: Any) -> np.ndarray:
    """Compute from shared memory into shared memory."""
    x = triton.InferInput("x", [1, 3], "FP32").set_shared_memory("r", 12)
    y = triton.InferRequestedOutput("y")
    y.set_shared_memory("r", 8, 12)
    with client(server) as http:
        http.infer("m", [x], outputs=[y])
    return np.array(shm.get_contents_as_numpy(memory, np.float32, [1, 2], 12))


def successes(server: Server) -> float:
    """Inferences that were answered, over all web processes that there have been."""
    text = httpx2.get(f"{server.url}/metrics").text
    row = r'^nnz_http_requests_total\{.*code="200".*infer.*servable="m"\} (\S+)$'
    return sum(float(found) for found in re.findall(row, text, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_web_process_is_lost(tmp_path: Path, memory: Any) -> None:
    """Regions, levels of the log and counts are those of the server."""
    server = Server(tmp_path)
    try:
        server.wait()
        httpx2.put(f"{server.url}/v1/models/m", content=linear(), timeout=60)
        with client(server) as http:
            assert "system_shared_memory" in http.get_server_metadata()["extensions"]
            http.register_system_shared_memory("r", memory._shm_key, 24)
            http.update_log_settings({"log_verbose_level": 1})
            http.update_trace_settings(settings={"trace_rate": "9"})
        np.testing.assert_allclose(infer(server, memory), X @ WEIGHTS.T)
        assert successes(server) == 1  # which is written down now

        lost = server.child("web")
        os.kill(lost, signal.SIGKILL)
        until(lambda: not alive(lost))
        server.wait()

        memory._mpsm_handle.buf[12:24] = bytes(12)
        np.testing.assert_allclose(infer(server, memory), X @ WEIGHTS.T)
        assert successes(server) == 2
        with client(server) as http:
            assert http.get_log_settings()["log_verbose_level"] == 1
            assert http.get_trace_settings()["trace_rate"] == "9"
    finally:
        assert server.close() == 0

    again = Server(tmp_path)
    try:
        again.wait()
        with client(again) as http:
            assert http.get_system_shared_memory_status() == []
            assert http.get_log_settings()["log_verbose_level"] == 0
            assert http.get_trace_settings()["trace_rate"] == "1000"
        assert successes(again) == 0
    finally:
        assert again.close() == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_follow_the_log(tmp_path: Path) -> None:
    """A worker that runs is as talkative as it was asked for, and so is the next."""
    log = tmp_path / "log"

    def talkative() -> int:
        """Workers that were told to be."""
        lines = [one for one in log.read_bytes().splitlines() if one[:1] == b"{"]
        rows = [row for row in map(orjson.loads, lines) if row["process"] == "worker"]
        told = [row["written"] for row in rows if row["event"] == "log changed"]
        assert all("debug" in levels for levels in told)
        return len(told)

    with log.open("wb") as file:
        server = Server(tmp_path / "home", stderr=file.fileno())
        try:
            server.wait()
            assert talkative() == 0
            with client(server) as http:
                http.update_log_settings({"log_verbose_level": 1})
            until(lambda: talkative() == 1)

            first = server.child("worker")
            os.kill(first, signal.SIGKILL)
            until(lambda: not alive(first))
            until(lambda: talkative() == 2)
        finally:
            assert server.close() == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "settings",
    [{"shared_memory": "false"}, {"host": "0.0.0.0", "insecure": "true"}],  # noqa: S104 - lends nothing
)
def test_nothing_is_lent(tmp_path: Path, settings: dict[str, str]) -> None:
    """Off when told so, and where others than this machine can connect."""
    server = Server(tmp_path, grpc_port=0, **settings)
    try:
        ports = [server.url, server.state["grpc"]]
        http, grpc = (f"127.0.0.1:{one.rpartition(':')[2]}" for one in ports)
        until(lambda: server.ready())
        with (
            triton.InferenceServerClient(http) as over_http,
            triton_grpc.InferenceServerClient(grpc) as over_grpc,
        ):
            until(over_grpc.is_server_ready)
            for door in (over_http, over_grpc):
                assert "system_shared_memory" not in str(door.get_server_metadata())
                with pytest.raises(InferenceServerException, match="NNZ_SHARED_MEMORY"):
                    door.register_system_shared_memory("r", "key", 8)
    finally:
        assert server.close() == 0


def test_a_collector_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server does not start, and says which setting is wrong."""
    try:
        assert supervisor.serve(Settings(home=tmp_path, port=0, otel_endpoint="x")) == 1
    finally:
        structlog.reset_defaults()

    assert "NNZ_OTEL_ENDPOINT is 'x'" in capsys.readouterr().err
