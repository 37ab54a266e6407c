"""The demo runs from nothing, and fails where it must."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nnz import Client

DEMO = Path(__file__).parents[2] / "deploy" / "demo" / "demo.py"


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
