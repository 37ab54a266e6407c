"""What the tests of stores share."""

from __future__ import annotations

from typing import Any

from nnz_service.jobs import Job, JobStore, Status

KINDS = ["cg"]


def claimed(store: JobStore, worker: str = "w") -> Job:
    job = store.claim(worker, KINDS)
    assert job is not None
    return job


def ended(store: JobStore, params: dict[str, Any], seconds: float, **end: Any) -> Job:
    """A job that succeeded after so much computing."""
    store.submit("cg", params)
    job = claimed(store)
    return store.finish(job.id, job.token, Status.SUCCEEDED, seconds=seconds, **end)
