"""How a job looks to callers: what the store holds, and what follows from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nnz_service.gateway import Parts
from nnz_service.jobs import Job, Status
from nnz_service.jobs.forecast import predicted_finish


def describe(parts: Parts, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Return `JobOut` of each job, with what can be foretold; asks the store once.

    Raises:
        DatabaseAwayError: The store cannot be reached.
    """
    active = [job.id for job in jobs if not job.status.ended]
    outlooks = parts.jobs.outlook(active) if active else {}
    now = time.time()
    rows = []
    for job in jobs:
        row = plain(parts, job)
        if (outlook := outlooks.get(job.id)) is not None:
            devices = parts.limits.devices
            row["predicted_finish"] = predicted_finish(job, outlook, devices, now)
            if job.status is Status.QUEUED:
                row["queue_position"] = outlook.position
        rows.append(row)
    return rows


def plain(parts: Parts, job: Job) -> dict[str, Any]:
    """Return `JobOut` of a job without a look at the others."""
    ended = job.finished is not None and job.status.ended
    expires = (job.finished or 0.0) + parts.limits.job_ttl if ended else None
    known = {"expires": expires, "queue_position": None, "predicted_finish": None}
    return job.to_json() | known
