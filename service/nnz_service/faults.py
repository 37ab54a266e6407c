"""Faults that tests inject at named points: a crash, a pause, a full disk.

`NNZ_FAULTS="job.after-commit:exit,job.before-reply:sleep=2"` arms points by name;
without it a point costs one look at a constant. Actions are `exit` (the process ends as
if killed), `sleep=SECONDS` and `full` (the disk has no room). `@3` behind an action
means: the third time in this process. With `NNZ_FAULTS_SEEN=FOLDER` each point strikes
once over all processes that share the folder, so that a successor gets past it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

#: As a process that was killed ends.
EXIT_CODE = 137


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one point.

    Args:
        action: `exit`, `sleep` or `full`.
        seconds: Of a sleep.
        time: Which passage in this process strikes, from 1; None: every one.
    """

    action: str
    seconds: float = 0.0
    time: int | None = None


def parse(text: str) -> dict[str, Fault]:
    """Read what `NNZ_FAULTS` says.

    Raises:
        ValueError: It is not `point:action[=seconds][@time]`, joined by commas.
    """
    found = {}
    for part in filter(None, text.split(",")):
        name, _, rest = part.strip().partition(":")
        action, _, count = rest.partition("@")
        action, _, seconds = action.partition("=")
        fault = Fault(action, float(seconds or 0), int(count) if count else None)
        if not name or action not in {"exit", "sleep", "full"}:
            raise ValueError(
                f"NNZ_FAULTS has {part!r}; it takes point:exit, point:sleep=2 and "
                "point:full, each perhaps with @3 for the third time"
            )
        found[name] = fault
    return found


_PLAN = parse(os.environ.get("NNZ_FAULTS", ""))
_ARMED = bool(_PLAN)
_lock = threading.Lock()
_passed: Counter[str] = Counter()


def point(name: str) -> None:
    """Do what was ordered for this point; usually nothing."""
    if _ARMED:
        _strike(name)


def _strike(name: str) -> None:
    fault = _PLAN.get(name)
    if fault is None:
        return
    with _lock:
        _passed[name] += 1
        due = fault.time in (None, _passed[name])
    if not due or not _first(name):
        return
    if fault.action == "exit":
        os._exit(EXIT_CODE)
    if fault.action == "sleep":
        time.sleep(fault.seconds)
        return
    raise OSError(errno.ENOSPC, f"no room, as ordered at {name}")


def _first(name: str) -> bool:
    """Whether no process of the folder has struck here before."""
    folder = os.environ.get("NNZ_FAULTS_SEEN")
    if folder is None:
        return True
    try:
        (Path(folder) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
