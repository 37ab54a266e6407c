"""Where `nnz bench` measures: the processor, the versions, and cores to keep to."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nnz_service import __version__
from nnz_service.cli import _peers
from nnz_service.errors import ImpossibleError


def cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def pinned(threads: int, wanted: bool | None) -> Iterator[bool]:
    """Keep the process to as many cores as it has threads; yield whether it is.

    Args:
        threads: Of each system.
        wanted: None for the default: with one thread, where the system can do it.

    Raises:
        ImpossibleError: It is wanted and this system cannot.
    """
    able = sys.platform == "linux"
    if wanted and not able:
        raise ImpossibleError("this system cannot pin a process; use --no-pin")
    if not able or not (threads == 1 if wanted is None else wanted):
        yield False
        return
    allowed = os.sched_getaffinity(0)
    # The first cores are those that serve most interrupts.
    _keep_to(sorted(allowed)[-threads:])
    try:
        yield True
    finally:
        _keep_to(sorted(allowed))


def _keep_to(chosen: Sequence[int]) -> None:
    """Move every thread of this process, for each has a mask of its own."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(task.name), chosen)


def describe(peers: Sequence[str]) -> dict[str, Any]:
    """Return the date, the processor, its vector width and all versions."""
    from nnz_kernels.backends import Backend, probe

    versions = {"nnz": __version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ("numba", "numpy")}
    versions |= {peer: _peers.version(peer) for peer in peers}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "vector_bits": probe(Backend.CPU).details["vector_width"],
        "versions": versions,
    }


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor as the system knows it."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def resolve(backend: str) -> dict[str, Any]:
    """Return the back-end that a name stands for here, and its GPU if it has one.

    Raises:
        ImpossibleError: There is no such back-end.
    """
    from nnz_kernels.backends import Backend, choose, probe

    try:
        found = choose(backend)
    except ValueError as exc:
        names = ", ".join(["auto", *Backend])
        raise ImpossibleError(f"back-end {backend!r}: there are {names}") from exc
    if found is not Backend.CUDA:
        return {"backend": found.value}
    return {"backend": found.value, "gpu": probe(found).details.get("name")}
