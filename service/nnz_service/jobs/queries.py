"""Questions about many jobs at once, as statements for any database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from nnz_service.jobs.forecast import MEMORY, Outlook, left
from nnz_service.jobs.job import ENDED, Job, Status
from nnz_service.jobs.retention import Ended, Usage
from nnz_service.jobs.tables import JOB_TIMES, JOBS, job_of

#: Ids in one statement: fewer than any database refuses.
_CHUNK = 500
_OVER = JOBS.c.status.in_(ENDED)


def page(
    limit: int,
    owner: str | None,
    status: Status | None,
    kind: str | None,
    before: int | None,
) -> Select[Any]:
    """The youngest jobs that fit, below a number."""
    query = select(JOBS).order_by(JOBS.c.number.desc()).limit(limit)
    if owner is not None:
        query = query.where(JOBS.c.owner == owner)
    if status is not None:
        query = query.where(JOBS.c.status == status.value)
    if kind is not None:
        query = query.where(JOBS.c.kind == kind)
    if before is not None:
        query = query.where(JOBS.c.number < before)
    return query


def newer(connection: Connection, seen: Mapping[str, int]) -> dict[str, Job | None]:
    """See `JobStore.newer`."""
    found: dict[str, Job | None] = {}
    for ids in _chunks(seen):
        query = select(JOBS.c.id, JOBS.c.revision).where(JOBS.c.id.in_(ids))
        now = {row.id: row.revision for row in connection.execute(query)}
        found |= {job_id: None for job_id in ids if job_id not in now}
        passed = [job_id for job_id in now if now[job_id] > seen[job_id]]
        if passed:
            rows = connection.execute(select(JOBS).where(JOBS.c.id.in_(passed)))
            found |= {row.id: job_of(row) for row in rows}
    return found


def outlook(connection: Connection, job_ids: Collection[str]) -> dict[str, Outlook]:
    """See `JobStore.outlook`.

    What is before the first of the jobs is counted by the database, by kind and
    subject; only what lies between them is read row by row.
    """
    job_ids = frozenset(job_ids)
    asked = [row for ids in _chunks(job_ids) for row in _active(connection, ids)]
    found = {}
    work = _Work()
    for row in connection.execute(_timed(JOBS.c.status == Status.RUNNING.value)):
        if row.id in job_ids:
            found[row.id] = Outlook(0, work.seconds, row.mean)
        work.add(row.mean, row.seconds)
    numbers = [row.number for row in asked if row.status == Status.QUEUED.value]
    if not numbers:
        return found
    for row in connection.execute(_crowd(min(numbers))):
        work.add(row.mean, 0.0, row.jobs)
        work.queued += row.jobs
    queued = JOBS.c.status == Status.QUEUED.value
    between = _timed(queued & JOBS.c.number.between(min(numbers), max(numbers)))
    for row in connection.execute(between):
        if row.id in job_ids:
            found[row.id] = Outlook(work.queued, work.seconds, row.mean)
        work.add(row.mean, row.seconds)
        work.queued += 1
    return found


@dataclass(slots=True)
class _Work:
    """What is before a place in the queue; seconds are None once a time is unknown."""

    seconds: float | None = 0.0
    queued: int = 0

    def add(self, mean: float | None, spent: float, jobs: int = 1) -> None:
        if mean is None or self.seconds is None:
            self.seconds = None
        else:
            self.seconds += jobs * left(mean, spent)


def _active(connection: Connection, ids: Sequence[str]) -> Sequence[Row[int, str]]:
    active = JOBS.c.status.in_((Status.QUEUED.value, Status.RUNNING.value))
    query = select(JOBS.c.number, JOBS.c.status).where(JOBS.c.id.in_(ids), active)
    return connection.execute(query).all()


def _timed(which: ColumnElement[bool]) -> Select[Any]:
    """Jobs with the time of their like, in the order in which they were submitted."""
    like = and_(JOB_TIMES.c.kind == JOBS.c.kind, JOB_TIMES.c.subject == JOBS.c.subject)
    return (
        select(JOBS.c.id, JOBS.c.seconds, JOB_TIMES.c.mean)
        .select_from(JOBS.outerjoin(JOB_TIMES, like))
        .where(which)
        .order_by(JOBS.c.number)
    )


def _crowd(before: int) -> Select[Any]:
    """Queued jobs below a number, counted by kind and subject, with their times."""
    groups = (
        select(JOBS.c.kind, JOBS.c.subject, func.count().label("jobs"))
        .where(JOBS.c.status == Status.QUEUED.value, JOBS.c.number < before)
        .group_by(JOBS.c.kind, JOBS.c.subject)
        .subquery()
    )
    like = and_(
        JOB_TIMES.c.kind == groups.c.kind, JOB_TIMES.c.subject == groups.c.subject
    )
    joined = groups.outerjoin(JOB_TIMES, like)
    return select(groups.c.jobs, JOB_TIMES.c.mean).select_from(joined)


def learn(connection: Connection, job: Job) -> None:
    """Take the time of a job that succeeded into the mean of its like."""
    make = postgresql.insert if connection.dialect.name == "postgresql" else None
    insert = (make or sqlite.insert)(JOB_TIMES).values(
        kind=job.kind, subject=job.subject, mean=job.seconds, count=1
    )
    mean, count = JOB_TIMES.c.mean, JOB_TIMES.c.count
    share = case((count + 1 < MEMORY, count + 1), else_=MEMORY)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=[JOB_TIMES.c.kind, JOB_TIMES.c.subject],
            set_={"mean": mean + (job.seconds - mean) / share, "count": count + 1},
        )
    )


def blobs(connection: Connection) -> set[str]:
    """Every blob that some job needs."""
    query = select(JOBS.c.inputs_sha, JOBS.c.result_sha, JOBS.c.checkpoint)
    return {sha for row in connection.execute(query) for sha in row if sha}


def needed(connection: Connection, sha: str) -> bool:
    """Whether some job needs a blob."""
    columns = (JOBS.c.inputs_sha, JOBS.c.result_sha, JOBS.c.checkpoint)
    queries = (select(JOBS.c.id).where(one == sha).limit(1) for one in columns)
    return any(connection.execute(query).first() is not None for query in queries)


def usage(connection: Connection) -> Usage:
    """How many jobs have ended, and what their results take."""
    total = func.coalesce(func.sum(JOBS.c.result_bytes), 0)
    row = connection.execute(select(func.count(), total).where(_OVER)).one()
    return Usage(int(row[0]), int(row[1]))


def oldest_ended(connection: Connection, limit: int) -> list[Ended]:
    """Jobs in the order in which they ended."""
    query = (
        select(JOBS.c.id, JOBS.c.finished, JOBS.c.result_bytes)
        .where(JOBS.c.finished.is_not(None))
        .order_by(JOBS.c.finished, JOBS.c.number)
        .limit(limit)
    )
    return [Ended(*row) for row in connection.execute(query)]


def drop_inputs(connection: Connection, limit: int) -> list[str]:
    """Take the inputs from jobs that have ended; returns their blobs."""
    idle = (
        select(JOBS.c.number, JOBS.c.inputs_sha)
        .where(_OVER, JOBS.c.inputs_sha.is_not(None))
        .limit(limit)
    )
    rows = connection.execute(idle).all()
    numbers = [row.number for row in rows]
    without = update(JOBS).where(JOBS.c.number.in_(numbers)).values(inputs_sha=None)
    connection.execute(without)
    return [row.inputs_sha for row in rows]


def _chunks(ids: Collection[str]) -> Iterator[Sequence[str]]:
    listed = list(ids)
    for start in range(0, len(listed), _CHUNK):
        yield listed[start : start + _CHUNK]
