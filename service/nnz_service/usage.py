"""What this process and this machine use now, read from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from nnz_service import __version__

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024
#: Where a container finds its own bound, by the version of control groups.
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def process_facts() -> dict[str, Any]:
    """Describe this process: pid, resident bytes, seconds since its start, version."""
    return {
        "pid": os.getpid(),
        "resident_bytes": resident_bytes(),
        "uptime_seconds": round(uptime_seconds(), 3),
        "version": __version__,
    }


def resident_bytes() -> int:
    """Return the bytes of this process that are in memory."""
    return int((_PROC / "self" / "statm").read_text().split()[1]) * _PAGE


def uptime_seconds() -> float:
    """Return the seconds since this process started."""
    ticks = start_of(os.getpid())
    return time.clock_gettime(time.CLOCK_BOOTTIME) - (ticks or 0) / _TICKS


def start_of(pid: int) -> int | None:
    """Return when a process started, in ticks since boot; None when it has ended.

    Together with the pid it names a process for ever: pids come again.
    """
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name before it may hold spaces and brackets.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def machine_memory() -> tuple[int, int]:
    """Return the bytes of memory of this machine, and those in use."""
    rows = dict(
        line.split(":", 1) for line in (_PROC / "meminfo").read_text().splitlines()
    )
    total, free = (int(rows[n].split()[0]) for n in ("MemTotal", "MemAvailable"))
    return total * _KIB, (total - free) * _KIB


def memory_limit() -> int:
    """Return the bytes that processes here may use: the machine's, or a container's."""
    found = [machine_memory()[0]]
    for path in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            found.append(int((_CGROUP / path).read_text()))
    return min(found)


class CpuClock:
    """How busy the machine was between two looks."""

    def __init__(self) -> None:
        self._last = 0, 0

    def utilization(self) -> float:
        """Return the busy part, 0 to 1, since the last call; the first: since boot."""
        line = (_PROC / "stat").read_text().partition("\n")[0]
        times = [int(text) for text in line.split()[1:9]]
        now = sum(times) - times[3] - times[4], sum(times)
        busy, whole = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        return min(max(busy / whole, 0.0), 1.0) if whole > 0 else 0.0
