"""The web process by itself: no worker, then a signal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from nnz_service.jobs import SqlStore


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A web process on an inherited socket, whose worker never comes, and its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        fd = listener.fileno()
        command = ["--fd", str(fd), "--worker", str(tmp_path / "worker")]
        found = subprocess.Popen(
            [sys.executable, "-m", "nnz_service.web_main", *command],
            pass_fds=(fd,),
            env=os.environ | {"NNZ_HOME": str(tmp_path), "NNZ_REQUEST_TIMEOUT": "5"},
        )
    try:
        yield found, url
    finally:
        found.kill()
        found.wait()


def test_without_worker(process: tuple[subprocess.Popen[bytes], str]) -> None:
    """It lives, is not ready, says so, and still knows what is stored."""
    _, url = process
    with httpx2.Client(base_url=url, timeout=60) as http:
        live = http.get("/v2/health/live")
        ready = http.get("/v2/health/ready")
        infer = http.get("/v2/models/m")
        stored = http.get("/v1/models")
        metrics = http.get("/metrics")

    assert live.status_code == 200
    assert "server" not in live.headers
    for refused in (ready, infer):
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]
    assert stored.json() == {"models": []}
    assert "nnz_worker_up 0.0" in metrics.text


def test_stop(process: tuple[subprocess.Popen[bytes], str], tmp_path: Path) -> None:
    """SIGTERM answers who waits for a job, at once, and ends with code 0."""
    running, url = process
    store = SqlStore(tmp_path / "catalog.sqlite")
    job = store.submit("cg", {})
    store.close()
    answers: list[httpx2.Response] = []

    def wait() -> None:
        answers.append(http.get(f"/v1/jobs/{job.id}?wait=50"))

    with httpx2.Client(base_url=url, timeout=60) as http:
        assert http.get("/v2/health/live").status_code == 200
        waiting = threading.Thread(target=wait)
        waiting.start()
        inflight = "nnz_http_requests_inflight 2.0"
        end = time.monotonic() + 10
        while inflight not in http.get("/metrics").text:
            assert time.monotonic() < end, "the waiting request never arrived"
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
        waiting.join(10)

    assert answers[0].json()["status"] == "queued"
