"""Every compiled entry point with its types: warm them all, count what was compiled.

Each file of this package with jitted functions exports ``ENTRIES: tuple[Entry, ...]``
that names every function which Python calls, with the argument types it is called
with. A call with other types would compile at request time; a test compares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nnz_kernels.cpu import (
    attention,
    depthwise,
    elementwise,
    few_pixels,
    gemm,
    microkernel,
    pool,
    products,
    stage,
    stamps,
    strips,
)
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import start_threads

#: (done, total, name of what comes next) -> None
Progress = Callable[[int, int, str], None]

#: Files with entry points, in the order in which they are warmed.
FILES: tuple[Any, ...] = (
    stamps,
    products,
    microkernel,
    stage,
    few_pixels,
    depthwise,
    strips,
    pool,
    gemm,
    elementwise,
    attention,
)


@dataclass(frozen=True, slots=True)
class CompileStats:
    """What numba's cache has done in this process for the catalogued functions."""

    hits: int
    misses: int
    variants: int


def entries() -> tuple[Entry, ...]:
    """Return every entry point."""
    return tuple(entry for file in FILES for entry in file.ENTRIES)


def warm(progress: Callable[[int, int, str], None] | None = None) -> int:
    """Compile every variant, or load it from the cache; return how many there are.

    Args:
        progress: Called before each variant with (done, total, name), and once at the
            end with done == total.
    """
    start_threads()
    work = [(entry, types) for entry in entries() for types in entry.signatures]
    for done, (entry, types) in enumerate(work):
        if progress is not None:
            progress(done, len(work), entry.name)
        entry.function.compile(types)
    if progress is not None:
        progress(len(work), len(work), "")
    return len(work)


def stats() -> CompileStats:
    """Return cache hits, misses (compilations) and variants in memory."""
    functions = {id(e.function): e.function for e in entries()}.values()
    return CompileStats(
        hits=sum(sum(f.stats.cache_hits.values()) for f in functions),
        misses=sum(sum(f.stats.cache_misses.values()) for f in functions),
        variants=sum(len(f.signatures) for f in functions),
    )


def compiled_count() -> int:
    """Return how many variants this process had to compile itself."""
    return stats().misses
