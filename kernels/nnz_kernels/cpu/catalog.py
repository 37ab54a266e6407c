"""Every compiled entry point with its types: warm them all, count what was compiled.

Each file of this package with jitted functions exports ``ENTRIES: tuple[Entry, ...]``
that names every function which Python calls, with the argument types it is called
with. A call with other types would compile at request time; a test compares.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba

from nnz_kernels.cpu import (
    attention,
    bit_sums,
    compiling,
    depthwise,
    elementwise,
    factors,
    few_pixels,
    gemm,
    graph_steps,
    merge,
    microkernel,
    pool,
    products,
    saddle,
    semiring_rows,
    sieve,
    spgemm,
    stage,
    stamps,
    strips,
    together,
)
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import cpu_name, start_threads

#: (done, total, name of what comes next) -> None
Progress = Callable[[int, int, str], None]

#: Files with entry points, in the order in which they are warmed.
FILES: tuple[Any, ...] = (
    together,
    stamps,
    bit_sums,
    sieve,
    products,
    factors,
    spgemm,
    semiring_rows,
    graph_steps,
    merge,
    saddle,
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
class Warmed:
    """What was made ready: variants, and how many of them had to be compiled."""

    variants: int
    compiled: int


@dataclass(frozen=True, slots=True)
class CompileStats:
    """What numba's cache has done in this process for the catalogued functions."""

    hits: int
    misses: int
    variants: int


def entries() -> tuple[Entry, ...]:
    """Return every entry point."""
    return tuple(entry for file in FILES for entry in file.ENTRIES)


def warm(progress: Progress | None = None) -> Warmed:
    """Compile every variant, or load it from the cache.

    The first that the cache lacks starts a process for each of a few cores, which
    compile all the rest.

    Args:
        progress: Called before each variant with (done, total, name), and once at the
            end with done == total.
    """
    start_threads()
    tell = progress or (lambda *_: None)
    work = [(entry, types) for entry in entries() for types in entry.signatures]
    others = None if compiling.processes() > 1 else Warmed(0, 0)
    before = compiled_count()
    for done, (entry, types) in enumerate(work):
        tell(max(done, others.variants if others else 0), len(work), entry.name)
        entry.function.compile(types)
        if others is None and compiled_count() > before:
            others = _compile_together(done, len(work), tell)
    tell(len(work), len(work), "")
    with contextlib.suppress(OSError):  # a cache that is only read
        _mark().touch()
    compiled = compiled_count() - before + (others.compiled if others else 0)
    return Warmed(len(work), compiled)


def is_complete() -> bool:
    """Whether the cache has every variant, as `warm` left it.

    Then there is nothing to wait for: one is read in some 25 ms when it is first
    called, all of them take seconds.
    """
    return _mark().exists()


def _mark() -> Path:
    """Return the file that says so, of this CPU and of the sources as numba knows them:
    by their places, times and sizes.
    """
    digest = hashlib.sha256(f"{cpu_name()} {numba.__version__}".encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        found = file.stat()
        digest.update(f"{file} {found.st_mtime} {found.st_size}".encode())
    config: Any = numba.config
    return Path(config.CACHE_DIR) / f"complete-{digest.hexdigest()[:16]}"


def _compile_together(done: int, total: int, tell: Progress) -> Warmed:
    """Compile everything with several processes; return what was told of it."""
    found = entries()
    order = sorted(range(len(found)), key=lambda i: -len(found[i].signatures))
    last, compiled = done, 0

    def ready(place: int, fresh: int) -> None:
        nonlocal last, compiled
        last, compiled = min(last + 1, total - 1), compiled + fresh
        tell(last, total, found[place].name)

    compiling.fill_cache(order, ready)
    return Warmed(last, compiled)


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
