"""Where the time of one request went, as `Server-Timing` says it."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Timings:
    """Seconds of each stage of one request, in the order in which they began."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def measure(self, name: str) -> _Lap:
        """Add the time inside the block to stage `name`."""
        return _Lap(self._seconds, name)

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
        return ", ".join([f"{name};dur={s * 1e3:.3f}" for name, s in rows.items()])


class _Lap:
    """One block that is measured."""

    __slots__ = ("_name", "_seconds", "_start")

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds = seconds
        self._name = name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self._start
        self._seconds[self._name] = self._seconds.get(self._name, 0.0) + spent
