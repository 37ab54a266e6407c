"""Where the time of one request went, as `Server-Timing` says it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Timings:
    """Seconds of each stage of one request, in the order in which they began."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time inside the block to stage `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self._seconds[name] = self._seconds.get(name, 0.0) + spent

    def add(self, timings: Mapping[str, float]) -> None:
        """Take over the seconds that a worker reported."""
        self._seconds.update(timings)

    def elapsed(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self.began

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage."""
        return dict(self._seconds)

    def header(self) -> str:
        """Format the value of `Server-Timing`, in milliseconds."""
        rows = {**self._seconds, "total": self.elapsed()}
        return ", ".join(f"{name};dur={s * 1e3:.3f}" for name, s in rows.items())
