"""The demo runs from nothing, and fails where it must."""

from __future__ import annotations

import http.server
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from nnz import Client

DEMO = Path(__file__).parents[2] / "deploy" / "demo" / "demo.py"
sys.path.insert(0, str(DEMO.parent))

import local_server  # noqa: E402 - the demo is no package


def demo(*words: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run the demo as ``make demo`` does."""
    return subprocess.run(
        [sys.executable, str(DEMO), *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.slow
class TestDemo:
    def test_everything_is_right(self) -> None:
        """
        Exit code 0, both accuracies and the recomputed residual in the tables, and
        no server left behind.
        """
        done = demo(timeout=290)

        assert done.returncode == 0, done.stdout + done.stderr
        dense, sparse = re.findall(r"(?:dense|sparse) +│? *(\d+\.\d+)%", done.stdout)
        assert float(dense) >= 98
        assert float(sparse) >= float(dense) - 1
        residual = re.search(r"\|b - A x\| / \|b\| = (\S+)", done.stdout)
        assert residual is not None
        assert float(residual[1]) <= 1e-8
        url = re.search(r"server ready at (\S+)", done.stdout)
        assert url is not None
        with Client(url[1], retries=0) as client:
            assert not client.server.ready()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_told_to_stop(self, number: signal.Signals) -> None:
        """
        A demo that is stopped in the middle stops its server.
        """
        process = subprocess.Popen(
            [sys.executable, "-u", str(DEMO)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as lines:
            ready = next(line for line in lines if "server ready at" in line)
            process.send_signal(number)
            assert process.wait(timeout=60) == 128 + number
            assert "Traceback" not in lines.read()

        with Client(ready.split()[-1], retries=0) as client:
            assert not client.server.ready()


class TestFailure:
    def test_no_server(self) -> None:
        """
        A URL where nobody answers: exit code 1 and what was wrong.
        """
        done = demo("--url", "http://127.0.0.1:9", timeout=60)

        assert done.returncode == 1
        assert "FAILED: nobody answers at http://127.0.0.1:9" in done.stdout


class Starting(http.server.BaseHTTPRequestHandler):
    """A server that says what it does, and gets on with it or not."""

    says: ClassVar[list[str]]

    def do_GET(self) -> None:
        found = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        body = json.dumps({"error": f"not ready: {found}"}).encode()
        self.send_response(200 if found == "done" else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def starting() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Starting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_waits_as_long_as_the_server_gets_on(
    starting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a number of seconds, which some machine takes for its kernels."""
    monkeypatch.setattr(local_server, "STILL_LIMIT", 0.5)
    steps = [f"kernel {n}" for n in range(5)]

    Starting.says = [*steps, "done"]
    told: list[str] = []
    local_server.wait_until_ready(starting, told.append)
    assert told == steps

    Starting.says = ["kernel 1"]
    with pytest.raises(local_server.ServerFailedError, match="kernel 1"):
        local_server.wait_until_ready(starting, lambda _: None)
