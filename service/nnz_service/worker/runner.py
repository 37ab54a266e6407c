"""Runs jobs: claims them, carries each through its attempt, has its end recorded."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from nnz_kernels.errors import DeviceLostError
from nnz_service import logs
from nnz_service.database import why
from nnz_service.errors import (
    DatabaseAwayError,
    ServiceError,
    UnavailableError,
    WorkerLostError,
)
from nnz_service.jobs import Job, JobStore, StaleTokenError, Status
from nnz_service.repository import BlobStore
from nnz_service.servable import Servable
from nnz_service.worker.attempt import Attempt, Bench, End, Keep
from nnz_service.worker.batches import Charge
from nnz_service.worker.ends import Ends
from nnz_service.worker.scheduler import Scheduler
from nnz_service.worker.toolbox import Toolbox

POLL = 1.0  # seconds between looks at the store when nobody calls `wake`
THREADS = 2  # jobs under way at once; their slices alternate


class JobRunner:
    """Threads that carry jobs from the store through the scheduler's slices.

    Args:
        store: Where jobs are.
        blobs: Where their arrays are.
        toolbox: Makes solvers.
        scheduler: Runs the slices.
        find_matrix: Gives a resident matrix by id; may block.
        keep: Stores a matrix that a job made.
        name: What claims carry.
        charge: Told the id of a key and the seconds that were computed for it.
    """

    def __init__(
        self,
        store: JobStore,
        blobs: BlobStore,
        toolbox: Toolbox,
        scheduler: Scheduler,
        find_matrix: Callable[[str], Servable],
        keep: Keep,
        name: str,
        charge: Charge = lambda *_: None,
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._kinds = toolbox.job_kinds
        self._name = name
        self._ends = Ends(store, blobs)
        self._closing = self._device_lost = self._away = False
        self._wakes = 0
        self._bench = Bench(
            store, blobs, toolbox, scheduler, find_matrix, keep,
            lambda: self._closing, lambda: self._wakes, charge,
        )  # fmt: skip
        self._changed = threading.Condition()
        self._claims = threading.Lock()
        self._running: set[str] = set()
        self._orphans = True  # whether the store may hold claims of ours for nothing
        self._begun = False
        self._threads = [
            threading.Thread(target=self._loop, name=f"job-{n}", daemon=True)
            for n in range(THREADS)
        ]

    def start(self) -> None:
        """Begin; what an earlier worker of this name left comes first."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Checkpoint what runs, queue it again, end the threads."""
        self._closing = True
        self.wake()
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join()
        if not started:
            return
        self._ends.retry(now=math.inf)
        try:
            self._store.requeue_lost(self._name, orderly=not self._device_lost)
        except DatabaseAwayError as error:  # the next worker of this name does it
            logs.logger().warning("jobs not handed on", reason=str(error))

    def wake(self) -> None:
        """Look at the store now, also for what runs: it may be cancelled."""
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    @property
    def running(self) -> int:
        """Jobs under way."""
        return len(self._running)

    def _loop(self) -> None:
        while not self._closing:
            try:
                self._ends.retry()
                job = None if self._ends.full else self._claim()
                self._away = False
                if job is not None:
                    self._attempt(job)
                    continue
            except DatabaseAwayError as error:
                if not self._away:
                    logs.logger().warning("jobs wait", reason=why(error))
                self._away = True
            except Exception:  # its disk may be full: try again
                logs.logger().exception("job loop failed")
            with self._changed:
                if not self._closing:
                    self._changed.wait(POLL)

    def _claim(self) -> Job | None:
        """Take a job; first give back what was claimed in our name for nobody.

        That is what an earlier worker left, and what was claimed though the answer of
        the database got lost.
        """
        with self._claims:
            if self._orphans:
                self._reclaim()
            self._orphans = True
            job = self._store.claim(self._name, self._kinds)
            self._orphans = False
            if job is not None:
                self._running.add(job.id)
        return job

    def _reclaim(self) -> None:
        lost = self._store.requeue_lost(
            self._name, orderly=self._begun, besides=self._running | self._ends.jobs
        )
        for job in lost:
            logs.logger().info("job of a lost worker", job=job.id, status=job.status)
        self._begun = True

    def _attempt(self, job: Job) -> None:
        end = None
        try:
            end = self._outcome(Attempt(self._bench, job))
            if end is not None:
                self._ends.add(end)
        finally:
            with self._claims:
                self._running.discard(job.id)
                self._orphans = self._orphans or end is None

    def _outcome(self, attempt: Attempt) -> End | None:
        """Run an attempt; returns how the job ended, or None when it did not."""
        try:
            return attempt.run()
        except StaleTokenError:
            log = logs.logger()
            log.warning("job was claimed by another worker", job=attempt.job.id)
        except DeviceLostError:  # while it prepared, on this thread
            self._closing = self._device_lost = True
            self._scheduler.lose()
        except WorkerLostError:  # it stays claimed: the next worker takes it back
            self._closing = self._device_lost = True
        except DatabaseAwayError as error:  # not the job's fault: it is queued again
            logs.logger().warning("job waits", job=attempt.job.id, reason=str(error))
        except UnavailableError as error:
            if not self._closing:
                return _failed(attempt, str(error))
        except ServiceError as error:
            return _failed(attempt, str(error))
        except Exception as error:
            logs.logger().exception("job failed", job=attempt.job.id)
            return _failed(attempt, f"{type(error).__name__}: {error}")
        return None


def _failed(attempt: Attempt, reason: str) -> End:
    return End(attempt.job, Status.FAILED, error=reason, seconds=attempt.seconds)
