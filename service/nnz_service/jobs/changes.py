"""Every change that a job can go through, as pure functions from job to job."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from typing import Any

from nnz_service.errors import ConflictError
from nnz_service.jobs.job import TRANSITIONS, Job, StaleTokenError, Status
from nnz_service.jobs.store import MAX_ATTEMPTS


def new_job(
    kind: str, params: Mapping[str, Any], inputs_sha: str | None, now: float
) -> Job:
    """A queued job with a fresh id."""
    identity = f"j-{uuid.uuid4().hex[:16]}"
    return Job(identity, kind, dict(params), Status.QUEUED, now, inputs_sha)


def claim(job: Job, worker: str, now: float) -> Job:
    """Give a queued job to a worker."""
    return dataclasses.replace(
        _move(job, Status.RUNNING),
        worker=worker,
        started=job.started or now,
        attempts=job.attempts + 1,
        token=job.token + 1,
    )


def progress(
    job: Job, token: int, progress: Mapping[str, Any], checkpoint: str | None
) -> Job:
    """Record how far the holder of the token has come."""
    _hold(job, token)
    return dataclasses.replace(
        job, progress=dict(progress), checkpoint=checkpoint or job.checkpoint
    )


def finish(
    job: Job, token: int, status: Status, now: float, outcome: Mapping[str, Any]
) -> Job:
    """End a running job; `outcome` has any of result, result_sha, error."""
    _hold(job, token)
    return dataclasses.replace(
        _move(job, status), finished=now, checkpoint=None, **outcome
    )


def cancel(job: Job, now: float) -> Job:
    """Cancel what is queued, ask for it when running, leave alone what has ended."""
    if job.status is Status.QUEUED:
        ended = _move(job, Status.CANCELLED)
        return dataclasses.replace(ended, finished=now, cancel_requested=True)
    if job.status is Status.RUNNING:
        return dataclasses.replace(job, cancel_requested=True)
    return job


def requeue(job: Job, now: float) -> Job:
    """What becomes of a running job when its worker is gone."""
    if job.cancel_requested:
        return dataclasses.replace(_move(job, Status.CANCELLED), finished=now)
    if job.attempts >= MAX_ATTEMPTS:
        reason = f"the worker ended {job.attempts} times while it ran this job"
        failed = _move(job, Status.FAILED)
        return dataclasses.replace(failed, finished=now, error=reason)
    return dataclasses.replace(_move(job, Status.QUEUED), worker=None)


def check_ended(job: Job) -> Job:
    """Return an ended job unchanged.

    Raises:
        ConflictError: when it has not ended.
    """
    if not job.status.ended:
        raise ConflictError(f"job {job.id} is {job.status}; cancel it first")
    return job


def _move(job: Job, status: Status) -> Job:
    if status not in TRANSITIONS[job.status]:
        raise ConflictError(f"job {job.id} is {job.status}; it cannot become {status}")
    return dataclasses.replace(job, status=status)


def _hold(job: Job, token: int) -> None:
    if job.status is not Status.RUNNING or job.token != token:
        raise StaleTokenError(
            f"job {job.id} is {job.status} under token {job.token}; {token} is stale"
        )
