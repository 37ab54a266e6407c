"""Whose job is next, and how many may wait.

Owners take turns: first who has the fewest running, then who was served longest ago.
The queue of each is in the order in which it was sent. A claim costs a few looks into
an index for each owner who has something queued, however much that is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import CTE, Connection, Select, func, select

from nnz_service.jobs.forecast import Outlook, crowded
from nnz_service.jobs.job import Status
from nnz_service.jobs.queries import outlook
from nnz_service.jobs.tables import JOBS

_QUEUED = JOBS.c.status == Status.QUEUED.value
_RUNNING = JOBS.c.status == Status.RUNNING.value


def next_number(kinds: Sequence[str], but: Collection[int] = ()) -> Select[int]:
    """The number of the job that is to be claimed next, of these kinds.

    Args:
        kinds: What the claimer can do.
        but: Numbers of jobs that others are at.
    """
    owners = _owners()
    theirs = JOBS.c.owner == owners.c.owner
    first = (
        select(JOBS.c.number)
        .where(theirs, _QUEUED, JOBS.c.kind.in_(kinds), JOBS.c.number.not_in(but))
        .order_by(JOBS.c.number)
        .limit(1)
    )
    running = select(func.count()).select_from(JOBS).where(theirs, _RUNNING)
    served = select(func.max(JOBS.c.started)).where(theirs)
    turns = (
        select(
            first.correlate(owners).scalar_subquery().label("number"),
            running.correlate(owners).scalar_subquery().label("running"),
            served.correlate(owners).scalar_subquery().label("served"),
        )
        .select_from(owners)
        .subquery()
    )
    return (
        select(turns.c.number)
        .where(turns.c.number.is_not(None))
        .order_by(turns.c.running, func.coalesce(turns.c.served, 0), turns.c.number)
        .limit(1)
    )


def _owners() -> CTE:
    """Owners of queued jobs: each found in the index behind the one before."""
    least = func.min(JOBS.c.owner)
    owners = select(least.label("owner")).where(_QUEUED).cte("owners", recursive=True)
    following = select(least).where(_QUEUED, JOBS.c.owner > owners.c.owner)
    more = select(following.correlate(owners).scalar_subquery()).where(
        owners.c.owner.is_not(None)
    )
    return owners.union_all(more)


def check_room(connection: Connection, owner: str, most: int) -> None:
    """Raise OverloadedError when an owner has as many queued jobs as that."""
    mine = JOBS.c.owner == owner
    count, first = connection.execute(
        select(func.count(), func.min(JOBS.c.number)).where(mine, _QUEUED)
    ).one()
    if count < most:
        return
    of_first = select(JOBS.c.id).where(JOBS.c.number == first)
    job_id = str(connection.execute(of_first).scalar())
    # Others may have ended it since it was counted: there is room at once.
    room = Outlook(0, 0.0, None)
    raise crowded(most, outlook(connection, [job_id]).get(job_id, room))
