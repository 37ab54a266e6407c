"""Bounds of the operating system for a process that may die in our place."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, or has ended already.

    It goes by the thread of the parent that started this process.

    Args:
        parent: Process id, as the parent told it: it may have ended since.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def confine(memory: int | None, seconds: int | None = None) -> None:
    """End with the parent; bound memory, CPU time and written files; dump no core.

    Args:
        memory: Bytes of address space, and of one file; None for no bound.
        seconds: CPU time; None for no bound.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, memory),
        (resource.RLIMIT_CORE, 0),
    ):
        if limit is not None:
            _, hard = resource.getrlimit(what)
            bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(what, (bound, bound))
    # Where memory is short for all, this process goes before the worker does.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
