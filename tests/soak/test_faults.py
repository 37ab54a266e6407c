"""Processes are killed, clients vanish: nothing acknowledged is lost, nothing is wrong.

Short in every run of the slow tests; `make soak` gives each fault ten minutes.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest
import scipy.sparse as sp
from service.processes import Server, living, until
from soak.conftest import Serve, idle, put
from soak.duration import SECONDS
from soak.load import callers, meanwhile, poisson, solved, tensor_body

from nnz import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS * 2 + 600)]

JOBS = 200 if SECONDS > 60 else 60


def kill(server: Server, kind: str) -> None:
    """Kill one process of a kind, when there is one."""
    module = f"nnz_service.{kind}_main"
    found = [pid for name, pid in living(server.process.pid) if name == module]
    if found:
        os.kill(random.choice(found), signal.SIGKILL)  # noqa: S311 - no secret


def test_worker_killed_under_load(serve: Serve, a: sp.csr_array) -> None:
    """What was under way is asked again of the next worker."""
    server = serve(workers=1)
    name = put(server, a)

    with callers(server.url, a, name, number=8, pause=0.01) as counts:
        times = meanwhile(SECONDS, 3.0, lambda: kill(server, "worker"))
        until(server.ready)
        time.sleep(1.0)

    print(f"worker killed {times} times: {counts}")
    assert times
    assert counts.good > 50
    assert counts.faultless()
    assert counts.codes[0] == 0  # no connection broke
    until(lambda: idle(server))


def test_web_killed_under_load(serve: Serve, a: sp.csr_array) -> None:
    """Connections break; who repeats is served by the others, and nothing leaks."""
    server = serve(web=2)
    name = put(server, a)

    with callers(server.url, a, name, number=8, pause=0.01) as counts:
        times = meanwhile(SECONDS, 3.0, lambda: kill(server, "web"))
        time.sleep(1.0)

    print(f"web killed {times} times: {counts}")
    assert times
    assert counts.good > 50
    assert counts.faultless()
    until(lambda: idle(server))


def test_a_stopped_worker_is_replaced(serve: Serve, a: sp.csr_array) -> None:
    """It does not end, it only shows no sign of life."""
    server = serve(hang_timeout=2)
    name = put(server, a)
    worker = server.child("worker")

    with callers(server.url, a, name, number=4, pause=0.01) as counts:
        os.kill(worker, signal.SIGSTOP)
        until(lambda: worker not in dict(map(reversed, living(server.process.pid))))
        until(server.ready)
        until(lambda: counts.good > 4)

    print(f"worker stopped: {counts}")
    assert counts.faultless()


def test_supervisor_killed_while_jobs_run(serve: Serve, a: sp.csr_array) -> None:
    """Every job that was acknowledged ends, once, with the right answer."""
    server = serve()
    rng = np.random.default_rng(0)
    sizes = [400, 3000, 12000]
    matrices = [poisson(size) for size in sizes]
    with Client(server.url) as client:
        stored = [client.matrices.put(one) for one in matrices]
        asked = {}
        for number in range(JOBS):
            which = number % len(sizes)
            b = rng.standard_normal(sizes[which])
            job = client.jobs.cg(stored[which], b, rtol=1e-10)
            asked[job.id] = (which, b)
    kills = 2 if SECONDS <= 60 else 10
    for _ in range(kills):
        time.sleep(2.0)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        server = serve()

    with Client(server.url) as client:
        ended = {}
        limit = time.monotonic() + 300
        for identity in asked:
            job = client.jobs.get(identity)
            job.wait(timeout=max(1.0, limit - time.monotonic()))
            ended[identity] = job
        listed = [job.id for job in client.jobs.list(limit=1000)]
        wrong = [
            identity
            for identity, (which, b) in asked.items()
            if not solved(matrices[which], ended[identity].result().x, b)
        ]

    print(f"supervisor killed {kills} times, {JOBS} jobs: {len(wrong)} wrong")
    assert sorted(listed) == sorted(asked)
    assert wrong == []


def test_clients_that_vanish(serve: Serve, a: sp.csr_array) -> None:
    """Mid-upload and before the answer: what they held is free again."""
    server = serve(max_inflight=16)
    name = put(server, a)
    host, port = server.url.removeprefix("http://").split(":")
    body, headers = tensor_body({"x": np.ones(400)}, {"matrix": name})
    head = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    whole = (
        f"POST /v1/ops/spmv HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body

    until_then = time.monotonic() + min(SECONDS, 30)
    times = 0
    while time.monotonic() < until_then:
        for length in (len(whole) // 2, len(whole)):
            with socket.create_connection((host, int(port))) as sock:
                sock.sendall(whole[:length])
            times += 1
        time.sleep(0.002)

    print(f"{times} clients vanished")
    until(lambda: idle(server))
    with callers(server.url, a, name, number=16) as counts:
        time.sleep(1.0)
    assert counts.faultless()
    assert counts.codes[429] == 0  # each of the 16 slots is free


def test_senders_that_dawdle(serve: Serve, a: sp.csr_array) -> None:
    """Heads that never end hold connections, not the service."""
    server = serve()
    name = put(server, a)
    host, port = server.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(200)]

    def drip() -> None:
        for sock in slow:
            try:
                sock.send(b"X")
            except OSError:
                continue

    with callers(server.url, a, name, number=4, pause=0.01) as counts:
        meanwhile(min(SECONDS, 30), 1.0, drip)
    for sock in slow:
        sock.close()

    print(f"200 senders dawdled: {counts}")
    assert counts.faultless()
    assert counts.codes[0] == 0
    assert counts.good > 50


def test_sigterm_under_load(serve: Serve, a: sp.csr_array) -> None:
    """Requests that were taken are answered; the others find nobody there."""
    server = serve(drain_delay=1)
    name = put(server, a)

    with callers(server.url, a, name, number=8) as counts:
        time.sleep(1.0)
        health = f"{server.url}/v2/health/ready"
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert httpx2.get(health).status_code == 503  # before it refuses anybody
        before = counts.good
        time.sleep(0.3)
        assert counts.good > before
        code = server.process.wait(20)

    print(f"SIGTERM under load: {counts}")
    assert code == 0
    assert counts.faultless()


def test_models_change_under_load(
    serve: Serve, a: sp.csr_array, tmp_path: Path
) -> None:
    """Versions are put, loaded and unloaded; not one request fails."""
    from onnx_graphs import graph, node

    def model(factor: float) -> bytes:
        weights = {"w": np.full((1, 3), factor, np.float32)}
        return graph([node("Mul", "x w")], {"x": (np.float32, ("n", 3))}, weights)

    server = serve()
    failures: list[str] = []
    stop = threading.Event()
    with Client(server.url) as client:
        (tmp_path / "m.onnx").write_bytes(model(1.0))
        client.models.put("m", tmp_path / "m.onnx")

        def use() -> None:
            x = np.ones((2, 3), np.float32)
            with Client(server.url, retries=0) as mine:
                while not stop.is_set():
                    try:
                        y = mine.models.get("m").infer(x)["y"]
                        if len(set(y.ravel().tolist())) != 1:
                            failures.append(f"mixed versions: {y}")
                    except Exception as error:
                        failures.append(repr(error))

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        until_then, factor = time.monotonic() + min(SECONDS, 30), 1.0
        while time.monotonic() < until_then:
            factor += 1.0
            (tmp_path / "m.onnx").write_bytes(model(factor))
            client.models.put("m", tmp_path / "m.onnx")
            if factor > 3:
                client.models.delete("m", version=str(int(factor) - 2))
        stop.set()
        for thread in threads:
            thread.join()

    print(f"{int(factor)} versions under load, {len(failures)} failures")
    assert failures == []


def test_health_needs_nothing(serve: Serve) -> None:
    """Liveness is not readiness: a server without its worker lives and is not ready."""
    server = serve()
    os.kill(server.child("worker"), signal.SIGKILL)

    until(lambda: not server.ready())
    assert httpx2.get(f"{server.url}/v2/health/live").status_code == 200
    until(server.ready)
