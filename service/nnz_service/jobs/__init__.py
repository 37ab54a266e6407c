"""Long work that is written down before it is acknowledged and survives a crash."""

from nnz_service.jobs.job import TRANSITIONS, Job, StaleTokenError, Status, fingerprint
from nnz_service.jobs.store import MAX_ATTEMPTS, JobStore

__all__ = [
    "MAX_ATTEMPTS",
    "TRANSITIONS",
    "Job",
    "JobStore",
    "StaleTokenError",
    "Status",
    "fingerprint",
]
