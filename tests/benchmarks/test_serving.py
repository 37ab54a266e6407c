"""What a request costs, from client to client, beside the least that it could cost."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import tritonclient.http as triton
from numpy.typing import NDArray
from onnx_graphs import graph, node
from service.processes import Server, until
from soak.load import tensor_body

from nnz import Client
from nnz_service.engine import model as engine

pytestmark = pytest.mark.benchmark

SMALL, LARGE = 256, 1 << 20  # FP32 numbers: 1 KiB, 4 MiB
ROUNDS = 5
CALLERS = (
    3  # of a network: one at the worker, one on its way there, one on its way back
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves `identity`."""
    folder = tmp_path_factory.mktemp("serving")
    models = folder / "models"
    models.mkdir()
    content = graph([node("Identity", "x")], {"x": (np.float32, ("n", "k"))}, {})
    (models / "identity.onnx").write_bytes(content)
    server = Server(folder / "home", models=models, stderr=subprocess.DEVNULL)
    server.wait()
    yield server
    server.close()


@pytest.fixture(scope="module")
def least() -> Iterator[dict[str, str]]:
    """Addresses of the least server, and of what gives bytes back and no more."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(_running(name)) for name in ("bare", "echo")}


@contextmanager
def _running(name: str) -> Iterator[str]:
    """Start a program of this folder on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    program = Path(__file__).with_name(f"{name}.py")
    process = subprocess.Popen(
        [sys.executable, str(program), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"127.0.0.1:{port}"
    until(lambda: _answers(address))
    yield address
    process.terminate()
    process.wait()


def _answers(address: str) -> bool:
    try:
        _identity(address, np.zeros((1, 4), np.float32))()
    except (OSError, triton.InferenceServerException):
        return False
    return True


def _identity(address: str, x: NDArray[np.float32]) -> Callable[[], float]:
    """Return a call that asks for x back, checks it, and says how long it took."""
    client = triton.InferenceServerClient(address)

    def call() -> float:
        began = time.perf_counter()
        asked = triton.InferInput("x", list(x.shape), "FP32")
        asked.set_data_from_numpy(x)
        answer = client.infer("identity", [asked]).as_numpy("y")
        seconds = time.perf_counter() - began
        assert answer.tobytes() == x.tobytes()
        return seconds

    return call


@contextmanager
def _plain(address: str, x: NDArray[np.float32]) -> Iterator[Callable[[], float]]:
    """Make the same by a socket: what of a request is no library's."""
    host, _, port = address.partition(":")
    tensor = triton.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    body, length = triton.InferenceServerClient.generate_request_body([tensor])
    head = (
        f"POST /v2/models/identity/infer HTTP/1.1\r\nHost: {address}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Inference-Header-Content-Length: {length}\r\n\r\n"
    )
    asked = head.encode() + body

    def call() -> float:
        began = time.perf_counter()
        sock.sendall(asked)
        answer = b""
        while not answer.endswith(x.tobytes()):
            piece = sock.recv(1 << 16)
            assert piece, answer
            answer += piece
        return time.perf_counter() - began

    with socket.create_connection((host, int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield call


def _alternating(
    calls: list[Callable[[], float]], each: int
) -> list[NDArray[np.float64]]:
    """Seconds of each call, asked in turns so that all see the same minutes."""
    found: list[list[float]] = [[] for _ in calls]
    for call in calls:
        for _ in range(each // 10):
            call()
    for _ in range(ROUNDS):
        for call, seconds in zip(calls, found, strict=True):
            seconds += [call() for _ in range(each)]
    return [np.array(seconds) * 1e3 for seconds in found]


def _addresses(server: Server, least: dict[str, str]) -> dict[str, str]:
    return {"nnz": server.url.removeprefix("http://"), **least}


def test_latency(server: Server, least: dict[str, str]) -> None:
    x = np.random.default_rng(0).standard_normal((1, SMALL)).astype(np.float32)
    addresses = _addresses(server, least)
    calls = [_identity(address, x) for address in addresses.values()]
    names = [*addresses, "nnz by a socket"]

    with _plain(addresses["nnz"], x) as plain:
        times = _alternating([*calls, plain], 1000)

    found = dict(zip(names, times, strict=True))

    for name, ms in found.items():
        p50, p90, p99 = np.percentile(ms, [50, 90, 99])
        print(
            f"\n{name}, 1 KiB: p50 {p50:.2f}, p90 {p90:.2f}, p99 {p99:.2f} ms", end=""
        )
    print(f"\n{np.median(found['nnz']) / np.median(found['bare']):.2f} times the least")


def test_bandwidth(server: Server, least: dict[str, str]) -> None:
    """How much of it the client takes, that of `echo` tells."""
    x = np.random.default_rng(0).standard_normal((1, LARGE)).astype(np.float32)
    addresses = _addresses(server, least)
    calls = [_identity(address, x) for address in addresses.values()]

    found = _alternating(calls, 40)

    for name, ms in zip(addresses, found, strict=True):
        p50 = float(np.median(ms))
        rate = 2 * x.nbytes / p50 / 1e6
        print(f"\n{name}, 4 MiB and back: p50 {p50:.1f} ms, {rate:.2f} GB/s", end="")
    print()


def test_requests_a_second(server: Server, tmp_path: Path) -> None:
    """With wrk, which takes a fiftieth of a core; a Python client would be measured."""
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    x = np.zeros((1, SMALL), np.float32)
    text = (
        f'{{"inputs":[{{"name":"x","shape":[1,{SMALL}],"datatype":"FP32",'
        f'"parameters":{{"binary_data_size":{x.nbytes}}}}}],'
        f'"parameters":{{"binary_data_output":true}}}}'
    )
    (tmp_path / "body").write_bytes(text.encode() + x.tobytes())
    (tmp_path / "post.lua").write_text(
        f'local file = io.open("{tmp_path}/body", "rb")\n'
        f'wrk.body = file:read("*all")\n'
        f'wrk.method = "POST"\n'
        f'wrk.headers["Inference-Header-Content-Length"] = {len(text)}\n'
    )
    rates = []
    for _ in range(ROUNDS):
        done = subprocess.run(
            ["wrk", "-t1", "-c16", "-d4s", "-s", str(tmp_path / "post.lua"),
             f"{server.url}/v2/models/identity/infer"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "Non-2xx" not in done.stdout, done.stdout
        found = re.search(r"Requests/sec: +([\d.]+)", done.stdout)
        assert found is not None, done.stdout
        rates.append(float(found[1]))
    print(f"\n16 connections: {statistics.median(rates):.0f} requests/s, all {rates}")


Request = tuple[bytes, Mapping[str, str]]


def _body(name: str, x: NDArray[np.float32]) -> Request:
    """Body and headers of an inference on one tensor."""
    asked = triton.InferInput(name, list(x.shape), "FP32")
    asked.set_data_from_numpy(x)
    body, split = triton.InferenceServerClient.generate_request_body([asked])
    return body, {"Inference-Header-Content-Length": str(split)}


@contextmanager
def _asker(
    server: Server, path: str, requests: Sequence[Request]
) -> Iterator[Callable[[int], bytes]]:
    """Give a function that posts one of the requests, each on its own connection."""
    address = server.url.removeprefix("http://")
    connections = [http.client.HTTPConnection(address, timeout=30) for _ in requests]

    def ask(number: int) -> bytes:
        body, headers = requests[number]
        connections[number].request("POST", path, body, dict(headers))
        answer = connections[number].getresponse()
        content: bytes = answer.read()
        assert answer.status == 200, content
        return content

    try:
        yield ask
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def _callers(count: int, call: Callable[[int], None]) -> Iterator[list[int]]:
    """Let so many call in turns inside the block; gives how often each was answered."""
    done, ended = [0] * count, threading.Event()

    def go_on(number: int) -> None:
        while not ended.is_set():
            call(number)
            done[number] += 1

    threads = [threading.Thread(target=go_on, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _rate(count: int, call: Callable[[int], None], seconds: float = 4.0) -> float:
    with _callers(count, call) as done:
        time.sleep(0.5)
        before, began = sum(done), time.perf_counter()
        time.sleep(seconds)
        return (sum(done) - before) / (time.perf_counter() - began)


@pytest.mark.parametrize("threads", [1, 2])
def test_network(tmp_path: Path, threads: int) -> None:
    """Inferences a second over HTTP beside those of the engine alone, on as many."""
    if "NNZ_BENCH_MODEL" not in os.environ:
        pytest.skip("NNZ_BENCH_MODEL names no network")
    network = engine.load(os.environ["NNZ_BENCH_MODEL"], threads=threads)
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(os.environ["NNZ_BENCH_MODEL"], models / "network.onnx")
    spec = network.inputs[0]
    x = (
        np.random.default_rng(0)
        .standard_normal((1, *spec.shape[1:]))
        .astype(np.float32)
    )
    right = network.run({spec.name: x})
    [y] = right.values()
    requests = [_body(spec.name, x)] * CALLERS
    alone, served = [], []
    home = tmp_path / "home"
    with ExitStack() as held:
        server = held.enter_context(
            closing(
                Server(home, models=models, threads=threads, stderr=subprocess.DEVNULL)
            )
        )
        server.wait()
        ask = held.enter_context(_asker(server, "/v2/models/network/infer", requests))

        def call(number: int) -> None:
            found = np.frombuffer(ask(number)[-y.nbytes :], y.dtype)
            np.testing.assert_allclose(found, y.reshape(-1), rtol=1e-3, atol=1e-4)

        for _ in range(ROUNDS):
            alone.append(_rate(1, lambda _: (network.run({spec.name: x}), None)[1]))
            served.append(_rate(CALLERS, call))
    share = statistics.median(s / a for s, a in zip(served, alone, strict=True))
    print(
        f"\nengine on {threads} threads {statistics.median(alone):.1f}/s, over HTTP "
        f"{statistics.median(served):.1f}/s: {share:.0%}"
    )


def test_products(server: Server) -> None:
    """Products with one matrix over HTTP; those that wait together become one."""
    rng = np.random.default_rng(0)
    a = sp.csr_array(sp.random_array((4096, 4096), density=1e6 / 4096**2, rng=rng))
    with Client(server.url) as nnz:
        name = nnz.matrices.put(a).id
    vectors = rng.standard_normal((32, 4096))
    bodies = [tensor_body({"x": x}, {"matrix": name}) for x in vectors]
    with _asker(server, "/v1/ops/spmv", bodies) as ask:
        right = [ask(number)[-4096 * 8 :] for number in range(32)]
        for x, y in zip(vectors, right, strict=True):
            np.testing.assert_allclose(np.frombuffer(y), a @ x, rtol=1e-9)

        def call(number: int) -> None:
            # In every bit, whoever it was joined with.
            assert ask(number).endswith(right[number])

        rates = {n: [_rate(n, call) for _ in range(ROUNDS)] for n in (1, 8, 32)}
    print()
    for count, found in rates.items():
        print(f"{count} callers: {statistics.median(found):.0f} products/s over HTTP")
