"""Logging on streams that cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
from nnz_service import logs

logs.configure("info", "web")
logs.logger().error("a line", to="nowhere")
try:
    raise ValueError("inside")
except ValueError:
    logs.logger().exception("with its stack")
print("went on")
"""


def test_a_line_that_cannot_be_written_is_lost() -> None:
    """What is logged must not fail because its log does."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            timeout=60,
        )

    assert ended.stdout == "went on\n"
