"""Jobs in a dict: for tests and for a server without a disk."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nnz_service.errors import NotFoundError
from nnz_service.jobs import changes, forecast
from nnz_service.jobs.forecast import Outlook
from nnz_service.jobs.job import Job, Status, fingerprint
from nnz_service.jobs.keys import reused
from nnz_service.jobs.retention import Ended, Usage


class MemoryStore:
    """A `JobStore` that forgets everything when the process ends."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}  # in the order of submission
        # owner, key -> job id, fingerprint
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}
        self._times: dict[tuple[str, str], tuple[float, int]] = {}

    def submit(
        self,
        kind: str,
        params: Mapping[str, Any],
        inputs_sha: str | None = None,
        idempotency_key: str | None = None,
        owner: str = "",
        most: int | None = None,
    ) -> Job:
        """See `JobStore`."""
        asked = fingerprint(kind, params, inputs_sha)
        with self._lock:
            if idempotency_key is not None and (owner, idempotency_key) in self._keys:
                job_id, before = self._keys[owner, idempotency_key]
                if before != asked:
                    raise reused(idempotency_key, job_id)
                return self._jobs[job_id]
            self._check_room(owner, most)
            job = changes.new_job(kind, params, inputs_sha, owner, self._clock())
            if idempotency_key is not None:
                self._keys[owner, idempotency_key] = job.id, asked
            return self._keep(job)

    def _check_room(self, owner: str, most: int | None) -> None:
        mine = [
            job.id
            for job in self._jobs.values()
            if job.owner == owner and job.status is Status.QUEUED
        ]
        if most is not None and len(mine) >= most:
            raise forecast.crowded(most, self.outlook(mine[:1])[mine[0]])

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """See `JobStore`."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or owner not in (None, job.owner):
                raise NotFoundError(f"there is no job {job_id!r}")
            return job

    def list(
        self,
        limit: int = 100,
        *,
        owner: str | None = None,
        status: Status | None = None,
        kind: str | None = None,
        before: str | None = None,
    ) -> Sequence[Job]:
        """See `JobStore`."""
        with self._lock:
            jobs = [*self._jobs.values()]
            if before is not None:
                jobs = jobs[: jobs.index(self.get(before, owner))]
            found = [
                job
                for job in reversed(jobs)
                if owner in (None, job.owner)
                and status in (None, job.status)
                and kind in (None, job.kind)
            ]
            return found[:limit]

    def newer(self, seen: Mapping[str, int]) -> Mapping[str, Job | None]:
        """See `JobStore`."""
        with self._lock:
            jobs = {job_id: self._jobs.get(job_id) for job_id in seen}
            return {
                job_id: job
                for job_id, job in jobs.items()
                if job is None or job.revision > seen[job_id]
            }

    def outlook(self, job_ids: Collection[str]) -> Mapping[str, Outlook]:
        """See `JobStore`."""
        with self._lock:
            active = [job for job in self._jobs.values() if not job.status.ended]
            active.sort(key=lambda job: job.status is Status.QUEUED)  # stable
            found, position = {}, 0
            before: float | None = 0.0
            for job in active:
                own = self._times.get((job.kind, job.subject), (None, 0))[0]
                if job.id in job_ids:
                    found[job.id] = Outlook(position, before, own)
                position += job.status is Status.QUEUED
                if before is not None:
                    rest = None if own is None else forecast.left(own, job.seconds)
                    before = None if rest is None else before + rest
            return found

    def request_cancel(self, job_id: str, owner: str | None = None) -> Job:
        """See `JobStore`."""
        with self._lock:
            return self._keep(changes.cancel(self.get(job_id, owner), self._clock()))

    def delete(
        self,
        job_id: str,
        drop: Callable[[str], object] = str,
        owner: str | None = None,
    ) -> tuple[str, ...]:
        """See `JobStore`."""
        with self._lock:
            job = changes.check_ended(self.get(job_id, owner))
            del self._jobs[job_id]
            self._keys = {k: v for k, v in self._keys.items() if v[0] != job_id}
            return self.release(job.blobs, drop)

    def release(
        self, blobs: Iterable[str], drop: Callable[[str], object]
    ) -> tuple[str, ...]:
        """See `JobStore`."""
        with self._lock:
            kept = self.blobs()
            gone = tuple(sha for sha in dict.fromkeys(blobs) if sha not in kept)
            for sha in gone:
                drop(sha)
            return gone

    def claim(self, worker: str, kinds: Sequence[str]) -> Job | None:
        """See `JobStore`."""
        with self._lock:
            jobs = self._jobs.values()
            waiting = [
                job for job in jobs if job.status is Status.QUEUED and job.kind in kinds
            ]
            if not waiting:
                return None
            run = Counter(job.owner for job in jobs if job.status is Status.RUNNING)
            served: dict[str, float] = {}
            for job in jobs:
                last = max(served.get(job.owner, 0.0), job.started or 0.0)
                served[job.owner] = last

            def turn(job: Job) -> tuple[int, float]:
                return run[job.owner], served[job.owner]

            job = min(waiting, key=turn)  # the first of them
            return self._keep(changes.claim(job, worker, self._clock()))

    def progress(
        self,
        job_id: str,
        token: int,
        progress: Mapping[str, Any],
        checkpoint: str | None = None,
        seconds: float | None = None,
    ) -> Job:
        """See `JobStore`."""
        with self._lock:
            job = self.get(job_id)
            now = changes.progress(job, token, progress, checkpoint, seconds)
            return self._keep(now)

    def finish(
        self,
        job_id: str,
        token: int,
        status: Status,
        *,
        result: Mapping[str, Any] | None = None,
        result_sha: str | None = None,
        result_bytes: int | None = None,
        error: str | None = None,
        seconds: float | None = None,
    ) -> Job:
        """See `JobStore`."""
        outcome = {
            "result": result,
            "result_sha": result_sha,
            "result_bytes": result_bytes,
            "error": error,
            "seconds": seconds,
        }
        with self._lock:
            job = self.get(job_id)
            ended = changes.finish(job, token, status, self._clock(), outcome)
            if status is Status.SUCCEEDED:
                like = ended.kind, ended.subject
                mean, count = self._times.get(like, (0.0, 0))
                self._times[like] = forecast.updated(mean, count, ended.seconds)
            return self._keep(ended)

    def requeue_lost(
        self,
        worker: str | None,
        *,
        orderly: bool = False,
        besides: Collection[str] = (),
    ) -> Sequence[Job]:
        """See `JobStore`."""
        with self._lock:
            lost = [
                job
                for job in self._jobs.values()
                if job.status is Status.RUNNING
                and worker in (None, job.worker)
                and job.id not in besides
            ]
            now = self._clock()
            return [
                self._keep(changes.requeue(job, now, orderly=orderly)) for job in lost
            ]

    def counts(self) -> Mapping[str, int]:
        """See `JobStore`."""
        with self._lock:
            found = Counter(job.status.value for job in self._jobs.values())
        return {status.value: found[status.value] for status in Status}

    def blobs(self) -> set[str]:
        """See `JobStore`."""
        with self._lock:
            return {sha for job in self._jobs.values() for sha in job.blobs}

    def usage(self) -> Usage:
        """See `JobStore`."""
        with self._lock:
            ended = [job for job in self._jobs.values() if job.status.ended]
            return Usage(len(ended), sum(job.result_bytes for job in ended))

    def oldest_ended(self, limit: int) -> Sequence[Ended]:
        """See `JobStore`."""
        with self._lock:
            ended = [
                Ended(job.id, job.finished or 0.0, job.result_bytes)
                for job in self._jobs.values()
                if job.status.ended
            ]
            return sorted(ended, key=lambda one: one.finished)[:limit]

    def drop_inputs(self, limit: int) -> Sequence[str]:
        """See `JobStore`."""
        with self._lock:
            idle = [
                job
                for job in self._jobs.values()
                if job.status.ended and job.inputs_sha
            ][:limit]
            for job in idle:
                self._keep(replace(job, inputs_sha=None))
            return [job.inputs_sha for job in idle if job.inputs_sha]

    def close(self) -> None:
        """See `JobStore`."""

    def _keep(self, job: Job) -> Job:
        self._jobs[job.id] = job
        return job
