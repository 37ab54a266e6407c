"""Temporary folders that go even when their process is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from nnz_service import scratch

_PROGRAM = """
import signal, sys
from pathlib import Path
from nnz_service import scratch

with scratch.below(Path(sys.argv[1])):
    made = scratch.folder("nnz-lu-")
    print(made.name, flush=True)
    signal.pause()
"""


def test_folders_lie_below_and_go_with_the_block(tmp_path: Path) -> None:
    with scratch.below(tmp_path / "run"):
        made = scratch.folder("nnz-lu-")
        assert Path(made.name).is_relative_to(tmp_path / "run")
        assert Path(made.name).name.startswith("nnz-lu-")
        with scratch.folder("nnz-highs-") as other:
            pass
        assert not Path(other).exists()
        assert Path(made.name).is_dir()

    made.cleanup()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
    with scratch.folder("nnz-lu-") as elsewhere:
        assert not Path(elsewhere).is_relative_to(tmp_path / "run")


def test_who_starts_removes_what_killed_ones_left_and_nothing_else(
    tmp_path: Path,
) -> None:
    """Only a process that has ended loses its folder."""
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    living, killed = (subprocess.Popen(command, **pipes) for _ in range(2))
    try:
        kept, left = (Path(one.stdout.readline().strip()) for one in (living, killed))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left.is_dir()

        with scratch.below(tmp_path):
            assert not left.parent.exists()
            assert kept.is_dir()
    finally:
        for one in (living, killed):
            one.kill()
            one.communicate()
