"""The gRPC process: by itself, without a worker, and in a whole server."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import orjson
import pytest
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from onnx_graphs import graph, node
from service.grpc.serving import SOON
from service.processes import START_SECONDS, Server, alive, children, until
from tritonclient.utils import InferenceServerException

slow = pytest.mark.slow
whole = pytest.mark.timeout(900)  # the first start may compile every kernel


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def start(home: Path, address: str) -> subprocess.Popen[bytes]:
    command = ["--address", address, "--worker", str(home / "worker")]
    chosen = {"NNZ_HOME": str(home), "NNZ_API_KEY": "sesame", "NNZ_ACCESS_LOG": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "nnz_service.grpc_main", *command],
        env=os.environ | chosen,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process whose worker never comes, and its address."""
    address = f"127.0.0.1:{free_port()}"
    process = start(tmp_path, address)
    yield process, address
    process.kill()
    process.communicate()


def live(client: triton.InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_live())
    except InferenceServerException:
        return False


def test_without_worker(
    alone: tuple[subprocess.Popen[bytes], str], tmp_path: Path
) -> None:
    """
    It lives, is not ready, says so, knows what is stored, writes down who was refused
    and what was called, and ends when told to.
    """
    process, address = alone
    key = {"authorization": "Bearer sesame"}
    with triton.InferenceServerClient(address) as client:
        until(lambda: live(client))
        assert not client.is_server_ready()
        assert not client.is_model_ready("m", headers=key)
        assert not client.get_model_repository_index(headers=key).models
        with pytest.raises(InferenceServerException) as refused:
            client.get_model_metadata("m", headers=key)
        with pytest.raises(InferenceServerException) as keyless:
            client.get_model_metadata("m")

    assert refused.value.status() == "StatusCode.UNAVAILABLE"
    assert keyless.value.status() == "StatusCode.UNAUTHENTICATED"
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=SOON)
    assert process.returncode == 0
    audit = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["status"] for line in audit] == [401]
    calls = [line for line in told.splitlines() if b'"event": "request"' in line]
    assert b'"ServerLive"' in calls[0]
    assert b'"UNAUTHENTICATED"' in calls[-1]


def test_address_is_taken(tmp_path: Path) -> None:
    """It says so and ends; the supervisor tries again."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        process = start(tmp_path, address)
        _, told = process.communicate(timeout=60)

    assert process.returncode == 1
    assert f"nnz: cannot listen on {address}" in told.decode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "home", grpc_port=0)
    made.wait()
    yield made
    made.close()


@slow
@whole
def test_in_a_server(server: Server) -> None:
    """
    Both doors serve the same models; the process is replaced on the same port, and
    ends with the server.
    """
    weights = {"w": np.eye(3, dtype=np.float32)}
    model = graph([node("MatMul", "x w")], {"x": (np.float32, ("n", 3))}, weights)
    put = httpx2.put(f"{server.url}/v1/models/m", content=model, timeout=120)
    assert put.status_code == 201, put.text
    address = server.state["grpc"]
    x = triton.InferInput("x", [2, 3], "FP32")
    x.set_data_from_numpy(np.arange(6, dtype=np.float32).reshape(2, 3))

    with triton.InferenceServerClient(address) as client:
        until(client.is_server_ready, START_SECONDS)
        (name,) = (row.name for row in client.get_model_metadata("m").outputs)
        assert client.infer("m", [x]).as_numpy(name).tolist() == [[0, 1, 2], [3, 4, 5]]
        client.unload_model("m")
        assert not client.is_model_ready("m")
        assert httpx2.get(f"{server.url}/v2/models/m/ready").status_code == 503
        client.load_model("m")
        assert httpx2.get(f"{server.url}/v2/models/m/ready").status_code == 200

        first = server.child("grpc")
        os.kill(first, signal.SIGKILL)
        until(lambda: not alive(first))
        until(lambda: live(client))

        assert server.child("grpc") != first
        until(client.is_server_ready)
        assert client.infer("m", [x]).as_numpy(name).shape == (2, 3)
        (row,) = client.get_inference_statistics("m").model_stats
        assert row.inference_count >= 2
    last = server.child("grpc")
    assert server.close() == 0
    assert not alive(last)
    assert server.process.stdout is not None


def scraped(server: Server, sample: str) -> float:
    """The value of a sample in /metrics; 0 where it has none."""
    text = httpx2.get(f"{server.url}/metrics").text
    found = re.findall(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    return float(found[0]) if found else 0.0


@slow
@whole
def test_seen_from_the_other_door(server: Server) -> None:
    """
    What gRPC counts is in /metrics over HTTP, also after its process was killed, and
    a region that was registered at one door is one at both.
    """
    calls = 'nnz_grpc_requests_total{code="OK",method="ServerMetadata"}'
    memory = shm.create_shared_memory_region("r", f"nnz-{uuid.uuid4().hex}", 8)
    try:
        with triton.InferenceServerClient(server.state["grpc"]) as client:
            until(lambda: live(client))
            extensions = client.get_server_metadata().extensions
            assert "system_shared_memory" in extensions
            assert until(lambda: scraped(server, calls)) == 1
            resident = 'nnz_process_resident_bytes{process="grpc"}'
            assert scraped(server, resident) > 10 << 20
            client.register_system_shared_memory("r", memory._shm_key, 8)
            (row,) = httpx2.get(f"{server.url}/v2/systemsharedmemory/status").json()
            assert row["name"] == "r"

            first = server.child("grpc")
            os.kill(first, signal.SIGKILL)
            until(lambda: not alive(first))
            until(lambda: live(client))
            assert "r" in client.get_system_shared_memory_status().regions
            client.get_server_metadata()
            until(lambda: scraped(server, calls) == 2)
    finally:
        shm.destroy_shared_memory_region(memory)


@slow
@whole
def test_start_lines(tmp_path: Path) -> None:
    """Where gRPC is stands under where HTTP is."""
    server = Server(tmp_path / "home", grpc_port=0)
    address = until(lambda: server.state.get("grpc"))
    assert server.process.stdout is not None
    lines = [server.process.stdout.readline() for _ in range(2)]
    server.close()

    assert lines[1].strip() == f"gRPC {address}"


@slow
@whole
def test_off(tmp_path: Path) -> None:
    """Without the setting there is no such process."""
    server = Server(tmp_path / "home")
    server.child("web")

    assert "grpc" not in server.state
    assert "nnz_service.grpc_main" not in children(server.process.pid)
    server.close()
