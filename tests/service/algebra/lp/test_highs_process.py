"""Processes of HiGHS that compute for ever, or for nobody: they end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from service.algebra.lp.programs import WYNDOR

from nnz_service.algebra.lp import highs_process
from nnz_service.algebra.lp.highs import HighsSolve
from nnz_service.algebra.lp.highs_process import HighsProcess, arrays_of
from nnz_service.algebra.lp.settings import LpSettings

TESTS = Path(__file__).parents[3]
#: Starts a process that computes for ever, says which and where, and is killed.
PARENT = """
import sys, time
from service.algebra.lp.programs import WYNDOR
from nnz_service.algebra.lp import highs_process
highs_process._CHILD = "service.algebra.lp.endless"
given = highs_process.arrays_of(WYNDOR)
run = highs_process.HighsProcess("solve", given)
print(run.process.pid, run.folder, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    found = f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", found)


@pytest.fixture
def _endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(highs_process, "_CHILD", "service.algebra.lp.endless")


def wait_until_begun(folder: Path) -> None:
    until = time.monotonic() + 30
    while not (folder / "begun").exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process computes; one that ended may wait for its parent."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def test_limits_become_cpu_time() -> None:
    """Room to start and to write is added; without a limit there is one of a day."""
    for limit, seconds in ((2.5, 13), (1e300, 2**31), (None, 86_400)):
        run = HighsProcess("solve", arrays_of(WYNDOR), limit=limit)
        told = run.process.args
        run.close()
        assert isinstance(told, list)
        assert told[-2:] == [str(seconds), str(os.getpid())]


@pytest.mark.slow
@pytest.mark.usefixtures("_endless")
def test_cpu_time_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if nobody looks at it; that is a limit of time, not a crash."""
    monkeypatch.setattr(highs_process, "DAY", 2)
    solve = HighsSolve(WYNDOR, LpSettings())
    out = solve.step(60)
    assert out is not None
    assert (out.status, out.message) == ("time_limit", "HiGHS used up 2 s of CPU time")
    assert out.extra["seconds"] >= 1


@pytest.mark.slow
def test_it_ends_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        wait_until_begun(Path(folder))
        assert is_running(int(pid))
        parent.kill()
    until = time.monotonic() + 10
    while is_running(int(pid)):
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("_endless")
def test_it_does_not_begin_for_a_parent_that_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was told of another process than the one that it has now."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        run = HighsProcess("solve", arrays_of(WYNDOR))
    assert run.process.wait(30) == 1
    assert b"nobody waits" in (run.folder / "complaints").read_bytes()
    run.close()
