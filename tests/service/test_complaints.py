"""What people complain of elsewhere and no other test shows; see README.md."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from service.processes import Server, resident, until
from service.web.doubler import running
from service.web.wire import infer, linear, poisson, put_matrix, read, send
from service.worker.servables import Doubler

from nnz_kernels.backends import Backend
from nnz_service.dataplane import Admission, InlineDataplane
from nnz_service.gateway import Limits
from nnz_service.jobs import SqlStore
from nnz_service.repository import Repository
from nnz_service.web import create_app
from nnz_service.worker import Host, Toolbox

MIB = 1 << 20
X = {"x": np.ones((1, 3), np.float32)}


@pytest.fixture
def slow() -> Doubler:
    """A model that computes for as long as its gate is closed."""
    return Doubler(max_batch=0)


@pytest.fixture
def http(tmp_path: Path, slow: Doubler) -> Iterator[httpx2.Client]:
    """A client of a server whose only model is `slow`."""
    repository, jobs = Repository(tmp_path), SqlStore(tmp_path / "catalog.sqlite")
    tools = Toolbox(Backend.REFERENCE, loaders={"model": lambda _: slow})
    limits = Limits()
    app = create_app(
        limits=limits,
        dataplane=InlineDataplane(Host(repository, jobs, tools)),
        repository=repository,
        jobs=jobs,
        admission=Admission(limits.max_inflight, limits.max_inflight_bytes),
    )
    with (
        running(app) as address,
        httpx2.Client(base_url=f"http://{address}", timeout=60) as client,
    ):
        assert client.put("/v1/models/slow", content=linear()).status_code == 201
        yield client
        slow.gate.set()
    repository.close()
    jobs.close()


def test_how_many_wait_can_be_seen(http: httpx2.Client, slow: Doubler) -> None:
    """A balancer finds the depth of the queue in the statistics and in the metrics."""
    slow.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(infer, http, "slow", X) for _ in range(3)]
        assert slow.entered.wait(10)

        def pending() -> bool:
            (row,) = http.get("/v2/models/slow/stats").json()["model_stats"]
            return bool(row["pending"] == 2)

        until(pending)
        assert http.get("/v1/stats").json()["scheduler"]["queued"] == 2
        text = http.get("/metrics").text
        values = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels.get("model") in (None, "slow")
        }
        assert values["nv_inference_pending_request_count"] == 2
        assert values["nnz_worker_queued"] == 2
        slow.gate.set()
        for one in asked:
            assert read(one.result())["y"].tolist() == [[2, 2, 2]]


def test_a_deadline_covers_computing(http: httpx2.Client, slow: Doubler) -> None:
    """Not only the time in the queue."""
    slow.gate.clear()
    began = time.monotonic()

    answer = send(http, "/v2/models/slow/infer", X, {"timeout": 300_000})

    assert answer.status_code == 504
    assert slow.entered.is_set()
    assert 0.3 <= time.monotonic() - began < 5.0


def test_an_announced_length_takes_no_memory(http: httpx2.Client) -> None:
    """Bodies are held as they come, whatever was said of their size."""
    host, port = str(http.base_url).removeprefix("http://").rstrip("/").split(":")
    head = (
        b"POST /v1/ops/dot HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n"
    )
    before = resident(os.getpid())
    asked = [socket.create_connection((host, int(port))) for _ in range(20)]
    for one in asked:
        one.sendall(head + b"\r\n{")
    assert http.get("/v2/health/live").status_code == 200  # it has read them
    time.sleep(0.2)

    grown = resident(os.getpid()) - before
    for one in asked:
        one.close()
    assert grown < 60 * MIB


def test_large_json_holds_nobody_up(http: httpx2.Client) -> None:
    """While megabytes of JSON are parsed, others are answered."""
    data = b"1.5," * 1_000_000
    body = (
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1000001],"data":['
        + data
        + b"1]}]}"
    )
    stop, slowest = threading.Event(), 0.0

    def post() -> None:
        while not stop.is_set():
            http.post("/v1/ops/dot", content=body)

    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(post) for _ in range(2)]
        for _ in range(30):
            began = time.monotonic()
            assert http.get("/v2/health/live").status_code == 200
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.02)
        stop.set()
        for one in busy:
            one.result()

    assert slowest < 2.0


@pytest.mark.slow
def test_cancelling_a_job_ends_no_process(tmp_path: Path) -> None:
    """It stops at its next slice; what is resident stays, and others go on."""
    server = Server(tmp_path, log_level="critical")
    try:
        server.wait()
        worker = server.child("worker")
        with httpx2.Client(base_url=server.url, timeout=60) as http:
            matrix = put_matrix(http, poisson(200_000).tocsr())
            b = {"b": np.ones(200_000)}
            never = {"matrix": matrix, "rtol": 1e-300, "maxiter": 10**9}
            job = send(http, "/v1/jobs", b, never, kind="cg").json()["id"]
            until(lambda: http.get(f"/v1/jobs/{job}").json()["status"] == "running")

            assert http.post(f"/v1/jobs/{job}/cancel").status_code == 200

            ended = http.get(f"/v1/jobs/{job}?wait=30").json()
            assert ended["status"] == "cancelled"
            x = {"x": np.ones(200_000)}
            y = read(send(http, "/v1/ops/spmv", x, {"matrix": matrix}))["y"]
            assert (y[0], y[1]) == (1.0, 0.0)
        assert server.child("worker") == worker
    finally:
        server.close()


def test_every_test_of_the_table_is_there() -> None:
    """The table names files and functions of this folder; none of them rots."""
    tests = Path(__file__).parent.parent
    table = Path(__file__).with_name("README.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", table)

    assert len(named) > 20
    for file, function in named:
        text = (tests / file).read_text()
        assert re.search(rf"def {function}\(", text), f"{file}::{function}"
