"""Jobs in the database: each change is one transaction, on the disk when it returns."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    Row,
    String,
    Table,
    select,
)
from sqlalchemy import delete as sql_delete
from sqlalchemy.sql.functions import count

from nnz_service.database import (
    METADATA,
    create_tables,
    open_database,
    reading,
    writing,
)
from nnz_service.errors import ImpossibleError, NotFoundError
from nnz_service.jobs import changes
from nnz_service.jobs.job import Job, Status, fingerprint

JOBS = Table(
    "jobs",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(18), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("params", JSON, nullable=False),
    Column("status", String(16), nullable=False, index=True),
    Column("created", Float, nullable=False),
    Column("inputs_sha", String(64)),
    Column("progress", JSON, nullable=False),
    Column("result", JSON),
    Column("result_sha", String(64)),
    Column("error", String),
    Column("started", Float),
    Column("finished", Float),
    Column("cancel_requested", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("token", Integer, nullable=False),
    Column("worker", String(64)),
    Column("checkpoint", String(64)),
    Column("idempotency_key", String(256), unique=True),
    Column("fingerprint", String(64), nullable=False),
)
_FIELDS = [field.name for field in dataclasses.fields(Job)]


class SqlStore:
    """A `JobStore` in the catalog of a home, shared by all processes of a server."""

    def __init__(
        self, where: Path | str, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._engine = open_database(where)
        create_tables(self._engine)

    def submit(
        self,
        kind: str,
        params: Mapping[str, Any],
        inputs_sha: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """See `JobStore`."""
        asked = fingerprint(kind, params, inputs_sha)
        with writing(self._engine) as connection:
            if idempotency_key is not None:
                before = connection.execute(
                    select(JOBS).where(JOBS.c.idempotency_key == idempotency_key)
                ).first()
                if before is not None and before.fingerprint != asked:
                    raise ImpossibleError(
                        f"idempotency key {idempotency_key!r} was used for other work"
                    )
                if before is not None:
                    return _job(before)
            job = changes.new_job(kind, params, inputs_sha, self._clock())
            row = _values(job) | {
                "idempotency_key": idempotency_key,
                "fingerprint": asked,
            }
            connection.execute(JOBS.insert().values(row))
            return job

    def get(self, job_id: str) -> Job:
        """See `JobStore`."""
        with reading(self._engine) as connection:
            return _find(connection, job_id)

    def list(self, limit: int = 100) -> Sequence[Job]:
        """See `JobStore`."""
        query = select(JOBS).order_by(JOBS.c.number.desc()).limit(limit)
        with reading(self._engine) as connection:
            return [_job(row) for row in connection.execute(query)]

    def request_cancel(self, job_id: str) -> Job:
        """See `JobStore`."""
        now = self._clock()
        return self._change(job_id, lambda job: changes.cancel(job, now))

    def delete(
        self, job_id: str, drop: Callable[[str], object] = str
    ) -> tuple[str, ...]:
        """See `JobStore`."""
        with writing(self._engine) as connection:
            job = changes.check_ended(_find(connection, job_id))
            connection.execute(sql_delete(JOBS).where(JOBS.c.id == job_id))
            gone = tuple(sha for sha in job.blobs if not _needed(connection, sha))
            for sha in gone:
                drop(sha)
            return gone

    def claim(self, worker: str, kinds: Sequence[str]) -> Job | None:
        """See `JobStore`."""
        query = (
            select(JOBS)
            .where(JOBS.c.status == Status.QUEUED.value, JOBS.c.kind.in_(kinds))
            .order_by(JOBS.c.number)
            .limit(1)
        )
        with reading(self._engine) as connection:
            if connection.execute(query).first() is None:
                return None  # the usual case costs no write lock
        with writing(self._engine) as connection:
            row = connection.execute(query).first()
            if row is None:
                return None
            return _write(connection, changes.claim(_job(row), worker, self._clock()))

    def progress(
        self,
        job_id: str,
        token: int,
        progress: Mapping[str, Any],
        checkpoint: str | None = None,
    ) -> Job:
        """See `JobStore`."""
        return self._change(
            job_id, lambda job: changes.progress(job, token, progress, checkpoint)
        )

    def finish(
        self,
        job_id: str,
        token: int,
        status: Status,
        *,
        result: Mapping[str, Any] | None = None,
        result_sha: str | None = None,
        error: str | None = None,
    ) -> Job:
        """See `JobStore`."""
        outcome = {"result": result, "result_sha": result_sha, "error": error}
        now = self._clock()
        return self._change(
            job_id, lambda job: changes.finish(job, token, status, now, outcome)
        )

    def requeue_lost(self, worker: str | None) -> Sequence[Job]:
        """See `JobStore`."""
        lost = select(JOBS).where(JOBS.c.status == Status.RUNNING.value)
        if worker is not None:
            lost = lost.where(JOBS.c.worker == worker)
        with writing(self._engine) as connection:
            rows = connection.execute(lost).all()
            now = self._clock()
            return [_write(connection, changes.requeue(_job(row), now)) for row in rows]

    def counts(self) -> Mapping[str, int]:
        """See `JobStore`."""
        query = select(JOBS.c.status, count()).group_by(JOBS.c.status)
        with reading(self._engine) as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        return {status.value: found.get(status.value, 0) for status in Status}

    def blobs(self) -> set[str]:
        """See `JobStore`."""
        query = select(JOBS.c.inputs_sha, JOBS.c.result_sha, JOBS.c.checkpoint)
        with reading(self._engine) as connection:
            return {sha for row in connection.execute(query) for sha in row if sha}

    def close(self) -> None:
        """See `JobStore`."""
        self._engine.dispose()

    def _change(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        with writing(self._engine) as connection:
            return _write(connection, change(_find(connection, job_id)))


def _find(connection: Connection, job_id: str) -> Job:
    row = connection.execute(select(JOBS).where(JOBS.c.id == job_id)).first()
    if row is None:
        raise NotFoundError(f"there is no job {job_id!r}")
    return _job(row)


def _job(row: Row[Any]) -> Job:
    fields = {name: row._mapping[name] for name in _FIELDS}
    return Job(**fields | {"status": Status(fields["status"])})


def _values(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in _FIELDS} | {"status": job.status.value}


def _write(connection: Connection, job: Job) -> Job:
    connection.execute(JOBS.update().where(JOBS.c.id == job.id).values(_values(job)))
    return job


def _needed(connection: Connection, sha: str) -> bool:
    owner = (JOBS.c.inputs_sha == sha) | (JOBS.c.result_sha == sha)
    query = select(JOBS.c.id).where(owner | (JOBS.c.checkpoint == sha)).limit(1)
    return connection.execute(query).first() is not None
