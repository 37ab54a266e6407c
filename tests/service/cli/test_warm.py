from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def warm(*words: str) -> Any:
    """Run ``nnz warm`` as a process of its own: numba keeps what it compiled."""
    command = Path(sys.executable).with_name("nnz")
    done = subprocess.run(
        [command, "warm", "--json", *words],
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
class TestWarm:
    def test_second_time_compiles_nothing(self) -> None:
        """
        After one run every kernel comes from the cache.
        """
        warm()

        again = warm()

        assert again["kernels"] > 0
        assert again["compiled"] == 0


class TestUsage:
    def test_unknown_target(self) -> None:
        """
        A CPU that nobody knows is wrong usage, and the known ones are named.
        """
        command = Path(sys.executable).with_name("nnz")

        done = subprocess.run(
            [command, "warm", "--cpu-target", "z80"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert done.returncode == 2
        assert "x86-64-v3" in done.stderr
