"""Waiting in a terminal: a bar on stderr, so that stdout stays the answer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

if TYPE_CHECKING:
    from nnz import Job, JobInfo

#: Bytes of a file from which on it is worth a bar; the SDK cuts such ones into pieces.
_LARGE = 64 << 20
#: Numbers of a solver that are shown, in this order.
_SHOWN = (
    "phase", "iterations", "depth", "reached", "converged", "triangles",
    "relative_residual", "relative_primal_residual", "relative_dual_residual",
    "relative_gap", "objective", "rows", "nnz",
)  # fmt: skip


def watched(job: Job) -> Job:
    """Wait until a job has ended; Ctrl-C cancels it.

    Where stderr is no terminal nothing is drawn.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    drawn = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not drawn) as bar:
        task = bar.add_task(job.info.kind, total=None)
        course = _Course()

        def show(info: JobInfo) -> None:
            done = course.fraction(info.progress)
            total = None if done is None else 1.0
            bar.update(task, description=told(info), total=total, completed=done or 0.0)

        try:
            return job.wait(progress=show)
        except KeyboardInterrupt:
            job.cancel()
            raise


def told(info: JobInfo) -> str:
    """One line on where a job stands."""
    numbers = [
        f"{name.removeprefix('relative_')} {_text(info.progress[name])}"
        for name in _SHOWN
        if info.progress.get(name) is not None
    ]
    return " ".join([info.kind, info.status, *numbers])


class _Course:
    """How far a residual has come down, on the scale of its digits."""

    def __init__(self) -> None:
        self._first: float | None = None

    def fraction(self, progress: Mapping[str, Any]) -> float | None:
        """From 0 to 1; None where nobody knows."""
        if progress.get("of") and progress.get("rows") is not None:
            return float(progress["rows"]) / float(progress["of"])
        residual = progress.get("residual", progress.get("change"))
        target = progress.get("target")
        if not residual or not target:
            return None
        self._first = self._first or float(residual)
        whole = math.log(self._first / target)
        if whole <= 0:
            return None
        return min(1.0, max(0.0, math.log(self._first / residual) / whole))


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def sending(path: Path) -> Iterator[Callable[[int, int], None] | None]:
    """A bar for a large file that is sent in pieces; None for a small one."""
    if path.stat().st_size < _LARGE:
        yield None
        return
    columns = (TextColumn(path.name), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(path.name, total=path.stat().st_size)
        yield lambda done, total: bar.update(task, completed=done, total=total)
