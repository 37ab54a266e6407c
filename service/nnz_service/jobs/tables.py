"""Tables of jobs, and the way between a row and a job."""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    Row,
    String,
    Table,
)

from nnz_service.database import COUNTER, METADATA
from nnz_service.jobs.job import Job, Status

#: What later versions added may be null or has a default: see `add_missing_columns`.
JOBS = Table(
    "jobs",
    METADATA,
    Column("number", COUNTER, primary_key=True, autoincrement=True),
    Column("id", String(18), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("params", JSON, nullable=False),
    Column("status", String(16), nullable=False),
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
    # The digest of owner and key; a key in clear text where an older version wrote it.
    Column("idempotency_key", String(256), unique=True),
    Column("fingerprint", String(64), nullable=False),
    Column("owner", String(128), nullable=False, server_default=""),
    Column("subject", String(64), nullable=False, server_default=""),
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("fruitless", Integer, nullable=False, server_default="0"),
    Column("seconds", Float, nullable=False, server_default="0"),
    Column("result_bytes", BigInteger, nullable=False, server_default="0"),
    # Holds all that a forecast counts, so that it does not read the jobs themselves.
    Index("ix_jobs_queue", "status", "number", "kind", "subject"),
    Index("ix_jobs_kind", "kind", "number"),
    Index("ix_jobs_owner", "owner", "number"),
    # For owners who take turns: their queues, how many of theirs run, the last start.
    Index("ix_jobs_turns", "status", "owner", "number", "kind"),
    Index("ix_jobs_served", "owner", "started"),
    Index("ix_jobs_finished", "finished"),
    Index("ix_jobs_inputs", "inputs_sha"),
    Index("ix_jobs_result", "result_sha"),
    Index("ix_jobs_checkpoint", "checkpoint"),
)

#: How long jobs of a kind on a subject take, as a mean that forgets.
JOB_TIMES = Table(
    "job_times",
    METADATA,
    Column("kind", String(32), primary_key=True),
    Column("subject", String(64), primary_key=True),
    Column("mean", Float, nullable=False),
    Column("count", Integer, nullable=False),
)

_FIELDS = [field.name for field in dataclasses.fields(Job)]


def job_of(row: Row[Any]) -> Job:
    """Turn a row of JOBS into a job."""
    fields = {name: row._mapping[name] for name in _FIELDS}
    return Job(**fields | {"status": Status(fields["status"])})


def values_of(job: Job) -> dict[str, Any]:
    """Turn a job into the columns of a row."""
    fields = {name: getattr(job, name) for name in _FIELDS}
    return fields | {"status": job.status.value, "subject": job.subject}
