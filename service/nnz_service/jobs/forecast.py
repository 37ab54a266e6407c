"""When a job will probably end, from what its like have taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnz_service.errors import OverloadedError
from nnz_service.jobs.job import Job, Status

#: How many of the last jobs a mean looks back on, roughly.
MEMORY = 10


#: Seconds after which to ask again for room in a queue when nothing tells.
_UNKNOWN = 10.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What stands between a job and its end.

    Args:
        position: Queued jobs that are before it in the queue.
        before: Seconds of computing left in all jobs before it, running ones included;
            None when that of one of them is not known.
        own: Seconds that its like take; None when none has ended yet.
    """

    position: int
    before: float | None
    own: float | None


def updated(mean: float, count: int, seconds: float) -> tuple[float, int]:
    """Take one more job into a mean: exact at first, then the old ones fade."""
    return mean + (seconds - mean) / min(count + 1, MEMORY), count + 1


def left(mean: float, seconds: float) -> float:
    """Seconds that a job still needs which has computed for `seconds`."""
    return max(mean - seconds, 0.0)


def predicted_finish(
    job: Job, outlook: Outlook, devices: int, now: float
) -> float | None:
    """When the job will end, in seconds since 1970; None when that is not known.

    Jobs of one device take turns on it, so that the work before a job and its own add
    up; several devices share the work before it.
    """
    if outlook.own is None or outlook.before is None:
        return None
    own = left(outlook.own, job.seconds)
    if job.status is Status.RUNNING and own == 0:
        return None  # it takes longer than any before it: nobody knows how long
    found = now + outlook.before / devices + own
    return found if math.isfinite(found) else None


def crowded(most: int, first: Outlook) -> OverloadedError:
    """Return the error of an owner whose queue is full.

    Args:
        most: Queued jobs that an owner may have.
        first: Of the one that will leave the queue next.
    """
    wait = _UNKNOWN if first.before is None else first.before
    return OverloadedError(
        f"{most} of your jobs are queued, and more cannot wait (NNZ_JOB_QUEUE): submit "
        "again when some have run, or cancel some",
        retry_after=min(wait, 3600.0),
    )
