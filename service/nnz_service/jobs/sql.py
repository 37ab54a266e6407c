"""Jobs in the database: each change is one transaction, on the disk when it returns."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.functions import count

from nnz_service.database import open_tables, reading, writing
from nnz_service.errors import NotFoundError
from nnz_service.jobs import changes, queries, turns
from nnz_service.jobs.forecast import Outlook
from nnz_service.jobs.job import Job, Status, fingerprint
from nnz_service.jobs.keys import digest, reused
from nnz_service.jobs.retention import Ended, Usage
from nnz_service.jobs.tables import JOBS, job_of, values_of

_ID = re.compile(r"j-[0-9a-f]{16}")


class SqlStore:
    """A `JobStore` in the catalog of a home, shared by all processes of a server.

    Args:
        where: Path of a SQLite file, or a database URL.
        clock: Gives seconds since 1970.
    """

    def __init__(
        self, where: Path | str, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._engine = open_tables(where)

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
        job = changes.new_job(kind, params, inputs_sha, owner, self._clock())
        asked = fingerprint(kind, params, inputs_sha)
        try:
            return self._add(job, asked, idempotency_key, most)
        except IntegrityError:  # the same key came at the same time: it has won
            return self._add(job, asked, idempotency_key, most)

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """See `JobStore`."""
        with reading(self._engine) as connection:
            return job_of(_find(connection, job_id, owner))

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
        with reading(self._engine) as connection:
            number = None
            if before is not None:
                number = _find(connection, before, owner).number
            query = queries.page(limit, owner, status, kind, number)
            return [job_of(row) for row in connection.execute(query)]

    def newer(self, seen: Mapping[str, int]) -> Mapping[str, Job | None]:
        """See `JobStore`."""
        with reading(self._engine) as connection:
            return queries.newer(connection, seen)

    def outlook(self, job_ids: Collection[str]) -> Mapping[str, Outlook]:
        """See `JobStore`."""
        with reading(self._engine) as connection:
            return queries.outlook(connection, job_ids)

    def request_cancel(self, job_id: str, owner: str | None = None) -> Job:
        """See `JobStore`."""
        now = self._clock()
        return self._change(job_id, lambda job: changes.cancel(job, now), owner)

    def delete(
        self,
        job_id: str,
        drop: Callable[[str], object] = str,
        owner: str | None = None,
    ) -> tuple[str, ...]:
        """See `JobStore`; the record is gone for good before its blobs are."""
        with writing(self._engine, beside=True) as connection:
            row = _find(connection, job_id, owner, lock=True)
            job = changes.check_ended(job_of(row))
            connection.execute(sql_delete(JOBS).where(JOBS.c.id == job_id))
        return self.release(job.blobs, drop)

    def release(
        self, blobs: Iterable[str], drop: Callable[[str], object]
    ) -> tuple[str, ...]:
        """See `JobStore`."""
        asked = dict.fromkeys(blobs)
        if not asked:
            return ()
        with writing(self._engine) as connection:
            gone = tuple(sha for sha in asked if not queries.needed(connection, sha))
            for sha in gone:
                drop(sha)
            return gone

    def claim(self, worker: str, kinds: Sequence[str]) -> Job | None:
        """See `JobStore`."""
        passed: set[int] = set()
        while True:
            query = turns.next_number(kinds, passed)
            with reading(self._engine) as connection:
                number = connection.execute(query).scalar()
            if number is None:
                return None  # the usual case costs no write lock
            with writing(self._engine, beside=True) as connection:
                row = _queued(connection, number)
                if row is not None:
                    job = changes.claim(job_of(row), worker, self._clock())
                    return _write(connection, job)
            passed.add(number)  # another is at it, or was faster

    def progress(
        self,
        job_id: str,
        token: int,
        progress: Mapping[str, Any],
        checkpoint: str | None = None,
        seconds: float | None = None,
    ) -> Job:
        """See `JobStore`."""
        return self._change(
            job_id,
            lambda job: changes.progress(job, token, progress, checkpoint, seconds),
        )

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
        now = self._clock()
        with writing(self._engine, beside=True) as connection:
            job = job_of(_find(connection, job_id, lock=True))
            ended = changes.finish(job, token, status, now, outcome)
            if status is Status.SUCCEEDED:
                queries.learn(connection, ended)
            return _write(connection, ended)

    def requeue_lost(
        self,
        worker: str | None,
        *,
        orderly: bool = False,
        besides: Collection[str] = (),
    ) -> Sequence[Job]:
        """See `JobStore`."""
        lost = select(JOBS).where(JOBS.c.status == Status.RUNNING.value)
        if worker is not None:
            lost = lost.where(JOBS.c.worker == worker)
        if besides:
            lost = lost.where(JOBS.c.id.not_in(besides))
        lost = lost.order_by(JOBS.c.number).with_for_update()
        with writing(self._engine, beside=True) as connection:
            jobs = [job_of(row) for row in connection.execute(lost)]
            now = self._clock()
            return [
                _write(connection, changes.requeue(job, now, orderly=orderly))
                for job in jobs
            ]

    def counts(self) -> Mapping[str, int]:
        """See `JobStore`."""
        query = select(JOBS.c.status, count()).group_by(JOBS.c.status)
        with reading(self._engine) as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        return {status.value: found.get(status.value, 0) for status in Status}

    def blobs(self) -> set[str]:
        """See `JobStore`."""
        with reading(self._engine) as connection:
            return queries.blobs(connection)

    def usage(self) -> Usage:
        """See `JobStore`."""
        with reading(self._engine) as connection:
            return queries.usage(connection)

    def oldest_ended(self, limit: int) -> Sequence[Ended]:
        """See `JobStore`."""
        with reading(self._engine) as connection:
            return queries.oldest_ended(connection, limit)

    def drop_inputs(self, limit: int) -> Sequence[str]:
        """See `JobStore`."""
        with writing(self._engine) as connection:
            return queries.drop_inputs(connection, limit)

    def close(self) -> None:
        """See `JobStore`."""
        self._engine.dispose()

    def _add(self, job: Job, asked: str, key: str | None, most: int | None) -> Job:
        """Write a new job down, unless its key has one."""
        with writing(self._engine, beside=True) as connection:
            row = None if key is None else _of_key(connection, key, job.owner)
            if key is not None and row is not None:
                if row.fingerprint != asked:
                    raise reused(key, row.id)
                return job_of(row)
            if most is not None:
                turns.check_room(connection, job.owner, most)
            more = {
                "idempotency_key": None if key is None else digest(job.owner, key),
                "fingerprint": asked,
            }
            connection.execute(JOBS.insert().values(values_of(job) | more))
            return job

    def _change(
        self, job_id: str, change: Callable[[Job], Job], owner: str | None = None
    ) -> Job:
        with writing(self._engine, beside=True) as connection:
            row = _find(connection, job_id, owner, lock=True)
            return _write(connection, change(job_of(row)))


def _queued(connection: Connection, number: int) -> Row[Any] | None:
    """The job of a number if it is queued, and nobody else is at it."""
    query = select(JOBS).where(
        JOBS.c.number == number, JOBS.c.status == Status.QUEUED.value
    )
    return connection.execute(query.with_for_update(skip_locked=True)).first()


def _find(
    connection: Connection, job_id: str, owner: str | None = None, *, lock: bool = False
) -> Row[Any]:
    query = select(JOBS).where(JOBS.c.id == job_id)
    if lock:
        query = query.with_for_update()
    row = connection.execute(query).first() if _ID.fullmatch(job_id) else None
    if row is None or owner not in (None, row.owner):
        raise NotFoundError(f"there is no job {job_id!r}")
    return row


def _of_key(connection: Connection, key: str, owner: str) -> Row[Any] | None:
    """Find the job of a key, also one that an older version wrote in clear text."""
    known = (digest(owner, key), key) if owner == "" else (digest(owner, key),)
    query = select(JOBS).where(JOBS.c.idempotency_key.in_(known), JOBS.c.owner == owner)
    return connection.execute(query).first()


def _write(connection: Connection, job: Job) -> Job:
    connection.execute(JOBS.update().where(JOBS.c.id == job.id).values(values_of(job)))
    return job
