"""Faults happen where and when they were ordered, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnz_service import faults
from nnz_service.faults import Fault, parse


def test_what_can_be_ordered() -> None:
    text = "a:exit, b.c:sleep=0.5@3,d:full@1"

    assert parse(text) == {
        "a": Fault("exit"),
        "b.c": Fault("sleep", 0.5, 3),
        "d": Fault("full", 0.0, 1),
    }
    assert parse("") == {}


@pytest.mark.parametrize("text", ["a", "a:burn", ":exit", "a:sleep=x", "a:exit@x"])
def test_what_cannot(text: str) -> None:
    with pytest.raises(ValueError, match=r"NNZ_FAULTS|could not convert|invalid lit"):
        parse(text)


def arm(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(faults, "_ARMED", True)
    monkeypatch.setattr(faults, "_PLAN", parse(text))
    faults._passed.clear()


def test_the_third_time(monkeypatch: pytest.MonkeyPatch) -> None:
    arm(monkeypatch, "here:full@3")
    faults.point("here")
    faults.point("here")
    faults.point("elsewhere")

    with pytest.raises(OSError, match="no room, as ordered at here"):
        faults.point("here")

    faults.point("here")


def test_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    arm(monkeypatch, "here:sleep=0.02")
    began = time.monotonic()

    for _ in range(3):
        faults.point("here")

    assert time.monotonic() - began >= 0.06


def test_once_over_all_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arm(monkeypatch, "here:full")
    monkeypatch.setenv("NNZ_FAULTS_SEEN", str(tmp_path))
    with pytest.raises(OSError, match="no room"):
        faults.point("here")

    faults.point("here")


@pytest.mark.parametrize(("plan", "code"), [("here:exit", 137), ("there:exit", 0)])
def test_exit(plan: str, code: int) -> None:
    program = "from nnz_service import faults; faults.point('here')"

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"NNZ_FAULTS": plan, "PYTHONPATH": ":".join(sys.path)},
    )

    assert done.returncode == code


def test_nothing_is_armed_by_default() -> None:
    assert not faults._ARMED
    faults.point("here")
