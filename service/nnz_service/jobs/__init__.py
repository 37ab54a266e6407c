"""Long work that is written down before it is acknowledged and survives a crash."""

from nnz_service.jobs.job import TRANSITIONS, Job, StaleTokenError, Status, fingerprint
from nnz_service.jobs.memory import MemoryStore
from nnz_service.jobs.retention import Retention
from nnz_service.jobs.sql import SqlStore
from nnz_service.jobs.store import MAX_ATTEMPTS, JobStore

__all__ = [
    "MAX_ATTEMPTS",
    "TRANSITIONS",
    "Job",
    "JobStore",
    "MemoryStore",
    "Retention",
    "SqlStore",
    "StaleTokenError",
    "Status",
    "fingerprint",
]
