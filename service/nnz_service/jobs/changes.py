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
    kind: str, params: Mapping[str, Any], inputs_sha: str | None, owner: str, now: float
) -> Job:
    """A queued job with a fresh id."""
    identity = f"j-{uuid.uuid4().hex[:16]}"
    asked = dict(params)
    return Job(identity, kind, asked, Status.QUEUED, now, inputs_sha, owner=owner)


def claim(job: Job, worker: str, now: float) -> Job:
    """Give a queued job to a worker."""
    return _changed(
        _move(job, Status.RUNNING),
        worker=worker,
        started=job.started or now,
        attempts=job.attempts + 1,
        fruitless=job.fruitless + 1,
        token=job.token + 1,
    )


def progress(
    job: Job,
    token: int,
    progress: Mapping[str, Any],
    checkpoint: str | None,
    seconds: float | None,
) -> Job:
    """Record how far the holder of the token has come."""
    _hold(job, token)
    return _changed(
        job,
        progress=dict(progress),
        checkpoint=checkpoint or job.checkpoint,
        fruitless=0 if checkpoint else job.fruitless,
        seconds=job.seconds if seconds is None else seconds,
    )


def finish(
    job: Job, token: int, status: Status, now: float, outcome: Mapping[str, Any]
) -> Job:
    """End a running job.

    `outcome` has any of result, result_sha, result_bytes, error, seconds.
    """
    _hold(job, token)
    told = {name: value for name, value in outcome.items() if value is not None}
    if "error" in told:
        told["error"] = told["error"].replace("\0", "\ufffd")  # no text to PostgreSQL
    return _changed(_move(job, status), finished=now, checkpoint=None, **told)


def cancel(job: Job, now: float) -> Job:
    """Cancel what is queued, ask for it when running, leave alone what has ended."""
    if job.status is Status.QUEUED:
        ended = _move(job, Status.CANCELLED)
        return _changed(ended, finished=now, cancel_requested=True, checkpoint=None)
    if job.status is Status.RUNNING and not job.cancel_requested:
        return _changed(job, cancel_requested=True)
    return job


def requeue(job: Job, now: float, *, orderly: bool) -> Job:
    """What becomes of a running job when its worker is gone.

    An orderly end is not held against the job.
    """
    if job.cancel_requested:
        ended = _move(job, Status.CANCELLED)
        return _changed(ended, finished=now, checkpoint=None)
    fruitless = max(job.fruitless - 1, 0) if orderly else job.fruitless
    if fruitless >= MAX_ATTEMPTS:
        reason = (
            f"the worker ended {fruitless} times in a row while it ran this job, "
            "before a checkpoint"
        )
        failed = _move(job, Status.FAILED)
        return _changed(failed, finished=now, error=reason, checkpoint=None)
    return _changed(_move(job, Status.QUEUED), worker=None, fruitless=fruitless)


def check_ended(job: Job) -> Job:
    """Return an ended job unchanged.

    Raises:
        ConflictError: when it has not ended.
    """
    if not job.status.ended:
        raise ConflictError(f"job {job.id} is {job.status}; cancel it first")
    return job


def _changed(job: Job, **fields: Any) -> Job:
    return dataclasses.replace(job, revision=job.revision + 1, **fields)


def _move(job: Job, status: Status) -> Job:
    if status not in TRANSITIONS[job.status]:
        raise ConflictError(f"job {job.id} is {job.status}; it cannot become {status}")
    return dataclasses.replace(job, status=status)


def _hold(job: Job, token: int) -> None:
    if job.status is not Status.RUNNING or job.token != token:
        raise StaleTokenError(
            f"job {job.id} is {job.status} under token {job.token}; {token} is stale"
        )
