"""Jobs in a dict: for tests and for a server without a disk."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nnz_service.errors import ImpossibleError, NotFoundError
from nnz_service.jobs import changes
from nnz_service.jobs.job import Job, Status, fingerprint


class MemoryStore:
    """A `JobStore` that forgets everything when the process ends."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}  # in the order of submission
        self._keys: dict[str, tuple[str, str]] = {}  # key -> job id, fingerprint

    def submit(
        self,
        kind: str,
        params: Mapping[str, Any],
        inputs_sha: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """See `JobStore`."""
        asked = fingerprint(kind, params, inputs_sha)
        with self._lock:
            if idempotency_key is not None and idempotency_key in self._keys:
                job_id, before = self._keys[idempotency_key]
                if before != asked:
                    raise ImpossibleError(
                        f"idempotency key {idempotency_key!r} was used for other work"
                    )
                return self._jobs[job_id]
            job = changes.new_job(kind, params, inputs_sha, self._clock())
            if idempotency_key is not None:
                self._keys[idempotency_key] = job.id, asked
            return self._keep(job)

    def get(self, job_id: str) -> Job:
        """See `JobStore`."""
        with self._lock:
            if job_id not in self._jobs:
                raise NotFoundError(f"there is no job {job_id!r}")
            return self._jobs[job_id]

    def list(self, limit: int = 100) -> Sequence[Job]:
        """See `JobStore`."""
        with self._lock:
            return [*self._jobs.values()][: -limit - 1 : -1]

    def request_cancel(self, job_id: str) -> Job:
        """See `JobStore`."""
        with self._lock:
            return self._keep(changes.cancel(self.get(job_id), self._clock()))

    def delete(
        self, job_id: str, drop: Callable[[str], object] = str
    ) -> tuple[str, ...]:
        """See `JobStore`."""
        with self._lock:
            job = changes.check_ended(self.get(job_id))
            del self._jobs[job_id]
            self._keys = {k: v for k, v in self._keys.items() if v[0] != job_id}
            kept = self.blobs()
            gone = tuple(sha for sha in job.blobs if sha not in kept)
            for sha in gone:
                drop(sha)
            return gone

    def claim(self, worker: str, kinds: Sequence[str]) -> Job | None:
        """See `JobStore`."""
        with self._lock:
            for job in self._jobs.values():
                if job.status is Status.QUEUED and job.kind in kinds:
                    return self._keep(changes.claim(job, worker, self._clock()))
            return None

    def progress(
        self,
        job_id: str,
        token: int,
        progress: Mapping[str, Any],
        checkpoint: str | None = None,
    ) -> Job:
        """See `JobStore`."""
        with self._lock:
            job = self.get(job_id)
            return self._keep(changes.progress(job, token, progress, checkpoint))

    def finish(
        self,
        job_id: str,
        token: int,
        status: Status,
        *,
        result: Mapping[str, Any] | None = None,
        result_sha: str | None = None,
        error: str | None = None,
    ) -> Job:
        """See `JobStore`."""
        outcome = {"result": result, "result_sha": result_sha, "error": error}
        with self._lock:
            job = self.get(job_id)
            ended = changes.finish(job, token, status, self._clock(), outcome)
            return self._keep(ended)

    def requeue_lost(self, worker: str | None) -> Sequence[Job]:
        """See `JobStore`."""
        with self._lock:
            lost = [
                job
                for job in self._jobs.values()
                if job.status is Status.RUNNING and worker in (None, job.worker)
            ]
            return [self._keep(changes.requeue(job, self._clock())) for job in lost]

    def counts(self) -> Mapping[str, int]:
        """See `JobStore`."""
        with self._lock:
            found = Counter(job.status.value for job in self._jobs.values())
        return {status.value: found[status.value] for status in Status}

    def blobs(self) -> set[str]:
        """See `JobStore`."""
        with self._lock:
            return {sha for job in self._jobs.values() for sha in job.blobs}

    def close(self) -> None:
        """See `JobStore`."""

    def _keep(self, job: Job) -> Job:
        self._jobs[job.id] = job
        return job
