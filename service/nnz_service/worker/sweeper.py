"""Once a minute: jobs that are kept long enough go, and blobs that nobody needs."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Callable

from nnz_service import logs
from nnz_service.errors import DatabaseAwayError
from nnz_service.jobs import JobStore, Retention
from nnz_service.jobs.retention import PAGE, sweep
from nnz_service.repository import Repository

#: Seconds between two sweeps of jobs, and sweeps between two looks at all blobs.
EVERY, BLOBS_EVERY = 60.0, 60
#: Seconds for which a blob may lie without a record: it is written before it is named.
GRACE = 3600.0
#: Seconds between the clock of the wall and one that never jumps, beyond which the
#: former was set.
JUMP = 60.0


class Sweeper:
    """A thread that keeps the store of jobs within its bounds.

    Args:
        repository: Whose blobs jobs share.
        jobs: The store.
        keep: What is kept.
        clock: Gives seconds since 1970.
        ticks: Gives monotonic seconds.
    """

    def __init__(
        self,
        repository: Repository,
        jobs: JobStore,
        keep: Retention,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._jobs = jobs
        self._keep = keep
        self._clock = clock
        self._ticks = ticks
        self._apart = clock() - ticks()
        self._steady_from = -math.inf
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, after the sweep at hand."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def sweep(self) -> None:
        """Sweep now.

        Raises:
            DatabaseAwayError: The database cannot be reached.
        """
        keep = self._keep
        if not self._steady():
            keep = dataclasses.replace(keep, seconds=math.inf)
        deleted = sweep(self._jobs, self._drop, keep, self._clock())
        if deleted:
            logs.logger().info("jobs swept", jobs=deleted)

    def sweep_blobs(self) -> None:
        """Remove what a crash left: blobs without a record, and unfinished files.

        Raises:
            DatabaseAwayError: The database cannot be reached.
        """
        if not self._steady():
            return
        blobs = self._repository.blobs
        blobs.sweep_staging(GRACE)
        self._repository.uploads.sweep()
        idle = set(blobs.idle(GRACE))
        idle -= self._jobs.blobs() | self._repository.used_blobs()
        if idle:
            gone = sorted(idle)
            for start in range(0, len(gone), PAGE):  # others write in between
                self._jobs.release(gone[start : start + PAGE], self._drop_idle)
            logs.logger().info("blobs swept", blobs=len(idle))

    def _steady(self) -> bool:
        """Whether ages can be told: for a while after the clock was set they cannot.

        What is old by it may have been written a moment before it was set.
        """
        apart, now = self._clock() - self._ticks(), self._ticks()
        if abs(apart - self._apart) > JUMP:
            logs.logger().warning("the clock was set", seconds=apart - self._apart)
            self._steady_from = now + GRACE
        self._apart = apart
        return now >= self._steady_from

    def _loop(self) -> None:
        pause = min(EVERY, max(self._keep.seconds, 1.0))
        for number in itertools.count(1):
            if self._stopped.wait(pause):
                return
            try:
                self.sweep()
                if number % BLOBS_EVERY == 0:
                    self.sweep_blobs()
            except DatabaseAwayError:
                continue
            except Exception:  # tried again in a minute
                logs.logger().exception("sweep failed")

    def _drop(self, sha256: str) -> None:
        if not self._repository.needs(sha256):
            self._repository.blobs.delete(sha256)

    def _drop_idle(self, sha256: str) -> None:
        # While the store is held nobody records a blob; one that somebody stored again
        # meanwhile is young.
        if self._repository.blobs.is_idle(sha256, GRACE):
            self._drop(sha256)
