"""The worker's watch over itself."""

from __future__ import annotations

import subprocess
import sys

from nnz_service import exit_codes

_PROGRAM = """
import asyncio, time
from nnz_service import worker_main

class Host:
    busy = {busy}

async def hang():
    beats = worker_main._beat(Host, {patience}, lambda: None)
    beating = asyncio.create_task(beats)
    await asyncio.sleep({patience} * 2)
    time.sleep({hang})

asyncio.run(hang())
print("went on")
"""


def run(
    patience: float, hang: float, busy: float = 0.0
) -> subprocess.CompletedProcess[str]:
    program = _PROGRAM.format(patience=patience, hang=hang, busy=busy)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )


def test_a_hung_loop_ends_the_process() -> None:
    """So that the supervisor starts another; the stacks say where it hung."""
    ended = run(patience=0.5, hang=30)

    assert ended.returncode == 1
    assert "went on" not in ended.stdout
    assert "Timeout" in ended.stderr
    assert "in hang" in ended.stderr


def test_a_hung_device_ends_the_process() -> None:
    ended = run(patience=0.5, hang=30, busy=0.6)

    assert ended.returncode == exit_codes.HUNG
    assert "in hang" in ended.stderr or "in _beat" in ended.stderr


def test_a_busy_loop_does_not() -> None:
    assert run(patience=5, hang=0.5).stdout == "went on\n"
