"""When a process is started again, and when its server gives up."""

from __future__ import annotations

import errno
import signal
import sys
import time
from pathlib import Path

import pytest

from nnz_service.dataplane import Page
from nnz_service.supervisor.children import Child, Supervisor

ENDS = [sys.executable, "-S", "-c", ""]
SLEEPS = ["sleep", "60"]


class Quiet:
    """A log that keeps nothing."""

    def error(self, event: str, **fields: object) -> None:
        pass


def ended(child: Child, *, lives: bool) -> float:
    """Start it, see it end; returns the pause before it is due again."""
    child.start({})
    assert child.process is not None
    child.process.wait()
    child.row["beat"] = time.monotonic() if lives else 0.0
    before = time.monotonic()
    assert child.ended() == 0
    return child.due - before


def test_what_is_killed_all_the_time_is_always_needed_again() -> None:
    """A worker that lived is back at once, the twentieth time as the first."""
    child = Child("worker", ENDS, row=Page().workers[0])

    pauses = [ended(child, lives=True) for _ in range(20)]

    assert max(pauses) < 0.3
    assert child.failures == 0


def test_what_is_killed_while_it_starts_did_not_fail_to() -> None:
    """A slow machine, and somebody who kills all the time, end no server."""
    child = Child("worker", SLEEPS, row=Page().workers[0])

    for _ in range(20):
        child.start({})
        child.kill()
        assert child.ended() == -signal.SIGKILL
        assert child.failures == 0


def test_what_never_shows_life_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs, is killed for it, and that is not somebody else's doing."""
    for name, value in (
        ("_START", 0.05), ("_LOOK", 0.01), ("_GIVE_UP", 2), ("_BACKOFF", (0.01, 0.01)),
    ):  # fmt: skip
        monkeypatch.setattr(f"nnz_service.supervisor.children.{name}", value)
    child = Child("worker", SLEEPS, row=Page().workers[0])

    assert Supervisor([child], {}, tmp_path, hang_timeout=0.05, log=Quiet()).run() == 1

    assert child.failures == 2


def test_a_machine_that_has_no_process_to_spare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who still runs goes on, and the other is tried again."""
    rows = Page().workers
    first, second = (Child(name, SLEEPS, row=rows[k]) for k, name in enumerate("ab"))
    start = Child.start

    def scarce(self: Child, environment: dict[str, str]) -> None:
        if self is first:
            raise BlockingIOError(errno.EAGAIN, "no process to spare")
        start(self, environment)

    monkeypatch.setattr(Child, "start", scarce)
    made = Supervisor([first, second], {}, tmp_path, log=Quiet())

    made._restart()

    assert second.alive
    assert not first.alive
    assert first.due > time.monotonic() + 5
    assert first.failures == 0
    monkeypatch.setattr(Child, "start", start)
    first.due = 0.0
    made._restart()
    assert first.alive
    for child in (first, second):
        child.kill()


def test_what_does_not_start_is_tried_ever_later() -> None:
    child = Child("worker", ENDS, row=Page().workers[0])

    pauses = [ended(child, lives=False) for _ in range(8)]

    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10], abs=0.1)
    assert child.failures == 8
    ended(child, lives=True)
    assert child.failures == 0


def test_a_server_gives_up_what_never_lived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnz_service.supervisor.children._BACKOFF", (0.001, 0.001))
    monkeypatch.setattr("nnz_service.supervisor.children._LOOK", 0.01)
    child = Child("worker", ENDS, row=Page().workers[0])

    assert Supervisor([child], {}, tmp_path, log=Quiet()).run() == 1

    assert child.failures == 8
