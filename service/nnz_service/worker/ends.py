"""Writes down how jobs ended, as soon as disk and database take it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from nnz_service import faults, logs
from nnz_service.errors import ConflictError, NotFoundError
from nnz_service.jobs import JobStore, Status
from nnz_service.repository import BlobStore, bundles
from nnz_service.worker.attempt import End

#: Seconds before another try: first, longest.
FIRST, LONGEST = 0.5, 10.0
#: Seconds after which a result that finds no room is given up.
PATIENCE = 600.0
#: Ends that may wait; beyond, no further job is begun.
WAITING = 4


@dataclass(slots=True)
class _Waiting:
    end: End
    since: float
    due: float
    pause: float


class Ends:
    """Ends of jobs on their way to the store.

    An end that cannot be written now waits in memory, so that other jobs go on; its job
    stays running meanwhile. When the worker stops before, the next one finds the job at
    its last checkpoint.

    Args:
        store: Where jobs are.
        blobs: Where their results go.
    """

    def __init__(self, store: JobStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs
        self._waiting: dict[str, _Waiting] = {}
        self._lock = threading.Lock()  # of the dict
        self._turn = threading.Lock()  # of who tries again

    @property
    def jobs(self) -> set[str]:
        """Ids of the jobs whose end waits."""
        with self._lock:
            return set(self._waiting)

    @property
    def full(self) -> bool:
        """Whether no further job should be begun."""
        return len(self._waiting) >= WAITING

    def add(self, end: End) -> None:
        """Write an end down, or let it wait."""
        now = time.monotonic()
        waiting = _Waiting(end, now, now, FIRST)
        if not self._settled(waiting):
            with self._lock:
                self._waiting[end.job.id] = waiting

    def retry(self, *, now: float | None = None) -> None:
        """Try again what is due, unless another thread does.

        Args:
            now: Monotonic clock; infinity takes everything as due.
        """
        if not self._waiting or not self._turn.acquire(blocking=False):
            return
        try:
            now = time.monotonic() if now is None else now
            with self._lock:
                due = [one for one in self._waiting.values() if one.due <= now]
            for waiting in due:
                if self._settled(waiting):
                    with self._lock:
                        del self._waiting[waiting.end.job.id]
        finally:
            self._turn.release()

    def _settled(self, waiting: _Waiting) -> bool:
        """Write one end; returns whether it needs no further try."""
        job_id = waiting.end.job.id
        try:
            self._write(waiting.end)
        except (ConflictError, NotFoundError) as error:
            # Somebody else has the job, or an answer that got lost said it was written.
            logs.logger().warning("job not recorded", job=job_id, reason=str(error))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            logs.logger().warning("job not recorded yet", job=job_id, reason=reason)
            now = time.monotonic()
            waiting.due, waiting.pause = now + waiting.pause, 2 * waiting.pause
            waiting.pause = min(waiting.pause, LONGEST)
            if waiting.end.arrays is not None and now - waiting.since > PATIENCE:
                waiting.end = _given_up(waiting.end, reason)
            return False
        return True

    def _write(self, end: End) -> None:
        outcome: dict[str, Any] = {"error": end.error, "seconds": end.seconds}
        blob = None
        if end.arrays is not None:
            faults.point("job.before-result")
            blob = bundles.save(self._blobs, end.arrays)
            faults.point("job.after-result")
            outcome |= {"result_sha": blob.sha256, "result_bytes": blob.bytes}
        self._store.finish(
            end.job.id, end.job.token, end.status, result=end.result, **outcome
        )
        faults.point("job.after-finish")
        if end.job.checkpoint:
            self._blobs.delete(end.job.checkpoint)
        if blob and end.arrays is not None and not blob.path.is_file():
            # An equal job was forgotten just before.
            bundles.save(self._blobs, end.arrays)


def _given_up(end: End, reason: str) -> End:
    error = (
        f"the result could not be written for {PATIENCE:g} s ({reason}); make room on "
        "the server's disk and submit the job again"
    )
    return replace(end, status=Status.FAILED, result=None, arrays=None, error=error)
