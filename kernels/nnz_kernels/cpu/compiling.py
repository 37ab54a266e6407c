"""Compile into the cache with several processes: numba compiles on one core.

Run as a program it is one of these processes. It takes places in the catalog from its
standard input, two bytes each, which all of them share, and writes for each variant
that is ready the place and how many it had to compile. What one that is killed leaves
is compiled by who warms.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable

from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import thread_count

#: Processes at most: each takes some hundred megabytes.
MOST = 4

_BYTES = 2


def processes() -> int:
    """Return how many processes compile."""
    return min(MOST, thread_count())


def fill_cache(places: Iterable[int], done: Callable[[int, int], None]) -> None:
    """Compile entries, and wait until it is done.

    Args:
        places: Of the entries in the catalog, those that take longest first.
        done: Called after each variant with the place, and how many were compiled.
    """
    command = [sys.executable, "-m", "nnz_kernels.cpu.compiling"]
    tasks, ready = os.pipe(), os.pipe()
    children = [
        subprocess.Popen(command, stdin=tasks[0], stdout=ready[1])  # noqa: S603 - itself
        for _ in range(processes())
    ]
    os.close(tasks[0])
    os.close(ready[1])
    try:
        with os.fdopen(tasks[1], "wb") as file:
            file.writelines(place.to_bytes(_BYTES) for place in places)
        with os.fdopen(ready[0], "rb", buffering=0) as file:
            while record := file.read(_BYTES + 1):
                done(int.from_bytes(record[:_BYTES]), record[_BYTES])
    finally:
        for child in children:
            child.kill()
            child.wait()


def work(entries: tuple[Entry, ...]) -> None:
    """Compile entries that the standard input names, until it ends or nobody waits."""
    parent = os.getppid()
    while len(place := os.read(0, _BYTES)) == _BYTES:
        entry = entries[int.from_bytes(place)]
        for types in entry.signatures:
            before = entry.misses
            entry.function.compile(types)
            if os.getppid() != parent:
                return
            os.write(1, place + bytes([entry.misses - before]))


if __name__ == "__main__":
    from nnz_kernels.cpu import catalog

    work(catalog.entries())
