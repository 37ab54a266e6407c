"""Where the time of one request went, for ``Server-Timing`` and the deadline."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import cast

from starlette.requests import HTTPConnection

from nnz_service.dataplane.admission import Reservation


class Stages:
    """Seconds of each stage of one request, in the order in which they began."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.began = time.perf_counter()
        self.deadline: float | None = None
        self.servable = ""
        #: Whether the whole body has arrived; what comes then is only the departure.
        self.received = False
        #: Bytes of the body as they came.
        self.bytes_in = 0
        #: What admission holds for the request, until it ends.
        self.reservation: Reservation | None = None
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

    def remaining(self) -> float | None:
        """Seconds until the deadline; None when there is none."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - self.elapsed())

    def shorten(self, microseconds: int | None) -> None:
        """Bring the deadline forward, as the caller asked; 0 and None do nothing."""
        if microseconds:
            asked = self.elapsed() + microseconds / 1e6
            self.deadline = min(asked, self.deadline or asked)

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage."""
        return dict(self._seconds)

    def header(self) -> str:
        """Format the ``Server-Timing`` header, in milliseconds."""
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


def stages_of(connection: HTTPConnection) -> Stages:
    """Return the stages that the outermost middleware began."""
    return cast(Stages, connection.scope["state"]["stages"])
