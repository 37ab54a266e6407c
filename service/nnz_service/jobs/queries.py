"""Questions about many jobs at once, as statements for any database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Integer,
    Select,
    Subquery,
    and_,
    case,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from nnz_service.jobs.forecast import MEMORY, Outlook
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
    """See `JobStore.outlook`: running sums over the queue, in one statement."""
    active = _active()
    found = {}
    for ids in _chunks(job_ids):
        for row in connection.execute(select(active).where(active.c.id.in_(ids))):
            # The sums hold the row itself.
            known = row.unknown_sum == row.unknown
            before = max(float(row.rest_sum - row.rest), 0.0) if known else None
            position = int(row.queued_sum - row.queued)
            found[row.id] = Outlook(position, before, row.mean)
    return found


def _active() -> Subquery:
    """Jobs that have not ended, in the order in which they are worked on."""
    queued = _one_if(JOBS.c.status == Status.QUEUED.value)
    unknown = _one_if(JOB_TIMES.c.mean.is_(None))
    rest = case(
        (JOB_TIMES.c.mean > JOBS.c.seconds, JOB_TIMES.c.mean - JOBS.c.seconds),
        else_=literal_column("0.0", Float),
    )
    like = and_(JOB_TIMES.c.kind == JOBS.c.kind, JOB_TIMES.c.subject == JOBS.c.subject)
    measures = {"queued": queued, "unknown": unknown, "rest": rest}
    order = [queued, JOBS.c.number]
    sums = [
        func.sum(one).over(order_by=order).label(f"{name}_sum")
        for name, one in measures.items()
    ]
    own = [one.label(name) for name, one in measures.items()]
    return (
        select(JOBS.c.id, JOB_TIMES.c.mean, *own, *sums)
        .select_from(JOBS.outerjoin(JOB_TIMES, like))
        .where(JOBS.c.status.in_((Status.QUEUED.value, Status.RUNNING.value)))
        .subquery()
    )


def _one_if(condition: ColumnElement[bool]) -> ColumnElement[int]:
    one, none = literal_column("1", Integer), literal_column("0", Integer)
    return case((condition, one), else_=none)


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
