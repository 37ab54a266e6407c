"""Which ended jobs are kept, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnz_service.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from nnz_service.jobs.store import JobStore

#: Jobs that are looked at, and deleted at most, in one go.
PAGE = 200


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of jobs that have ended; the oldest go first.

    Args:
        seconds: After the end.
        bytes: Of all results together.
        jobs: How many.
    """

    seconds: float = 7 * 86400.0
    bytes: int = 10 << 30
    jobs: int = 100_000


@dataclass(frozen=True, slots=True)
class Usage:
    """What ended jobs take now."""

    jobs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Ended:
    """One ended job: when, in seconds since 1970, and the bytes of its result."""

    id: str
    finished: float
    bytes: int


def surplus(
    usage: Usage, oldest: Sequence[Ended], keep: Retention, now: float
) -> list[str]:
    """Choose the jobs to delete.

    Args:
        usage: Of all ended jobs.
        oldest: The first of them, in the order in which they ended.
        keep: The rule.
        now: Seconds since 1970.

    Returns:
        Ids, oldest first; when it is all of `oldest`, there may be more.
    """
    jobs, size = usage.jobs, usage.bytes
    chosen = []
    for job in oldest:
        late = now - job.finished > keep.seconds
        if not (late or jobs > keep.jobs or size > keep.bytes):
            break
        chosen.append(job.id)
        jobs, size = jobs - 1, size - job.bytes
    return chosen


def sweep(
    store: JobStore, drop: Callable[[str], object], keep: Retention, now: float
) -> int:
    """Delete what is not kept, and the inputs of all that has ended.

    Args:
        store: Where jobs are.
        drop: Deletes a blob, unless something besides jobs needs it.
        keep: The rule.
        now: Seconds since 1970.

    Returns:
        How many jobs were deleted.
    """
    while inputs := store.drop_inputs(PAGE):
        store.release(inputs, drop)
    deleted = 0
    while chosen := surplus(store.usage(), store.oldest_ended(PAGE), keep, now):
        for job_id in chosen:
            try:
                store.delete(job_id, drop)
            except (ConflictError, NotFoundError):
                continue  # somebody else was quicker
            deleted += 1
        if len(chosen) < PAGE:
            break
    return deleted
