"""Work that somebody waits for, who may leave."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from nnz_service.algebra.krylov.method import Ended


class Unwanted(Ended):
    """Raised where work ends because nobody waits for it any more."""

    def __init__(self) -> None:
        super().__init__("cancelled", "nobody waits for it any more")


class Errand:
    """Between who wants something and who does it, on another thread.

    Args:
        wanted: Whether anybody still waits; whoever does the work looks now and then.
    """

    def __init__(self, wanted: Callable[[], bool] = lambda: True) -> None:
        self._wanted = wanted
        # Seconds until it was last begun, and when that was: read by another thread.
        self._meter: tuple[float, float | None] = (0.0, None)

    def wanted(self) -> bool:
        """Whether to go on."""
        return self._wanted()

    @property
    def computing(self) -> bool:
        """Whether the work goes on, rather than waits until it may."""
        return self._meter[1] is not None

    @property
    def seconds(self) -> float:
        """For how long it has gone on."""
        seconds, since = self._meter
        return seconds + (0.0 if since is None else time.monotonic() - since)

    def compute(self, on: bool) -> None:
        """Say that the work goes on from now, or that it does not."""
        if on != self.computing:
            self._meter = self.seconds, time.monotonic() if on else None

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Say that the block is the work."""
        self.compute(True)
        try:
            yield
        finally:
            self.compute(False)
