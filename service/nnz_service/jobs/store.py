"""Where jobs are kept: the contract of a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from nnz_service.jobs.job import Job, Status

#: A job that took its worker down this often is failed rather than tried again.
MAX_ATTEMPTS = 5


class JobStore(Protocol):
    """All methods are synchronous, thread-safe, and durable when they return."""

    def submit(
        self,
        kind: str,
        params: Mapping[str, Any],
        inputs_sha: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Write a new queued job down, or find the one that this key made before.

        Raises:
            ImpossibleError: when the key was used for a different request.
        """
        ...

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            NotFoundError: when there is none.
        """
        ...

    def list(self, limit: int = 100) -> Sequence[Job]:
        """The youngest jobs, youngest first."""
        ...

    def request_cancel(self, job_id: str) -> Job:
        """Cancel at once when queued, ask the worker when running, else do nothing."""
        ...

    def delete(
        self, job_id: str, drop: Callable[[str], object] = str
    ) -> tuple[str, ...]:
        """Forget an ended job; returns the blobs that no other job needs.

        `drop` gets each of them before anybody else can change the store: who stores a
        blob, records a job with it and then still finds the blob will keep it.

        Raises:
            ConflictError: while it has not ended.
        """
        ...

    def claim(self, worker: str, kinds: Sequence[str]) -> Job | None:
        """Take the oldest queued job of these kinds, with a fresh token."""
        ...

    def progress(
        self,
        job_id: str,
        token: int,
        progress: Mapping[str, Any],
        checkpoint: str | None = None,
    ) -> Job:
        """Record how far it is; `checkpoint` replaces the last one unless None.

        Raises:
            StaleTokenError: when the claim is no longer this worker's.
        """
        ...

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
        """End a running job.

        Raises:
            StaleTokenError: when the claim is no longer this worker's.
        """
        ...

    def requeue_lost(self, worker: str | None) -> Sequence[Job]:
        """Queue again (or fail, or cancel) what this worker ran when it ended; None for
        all of them.
        """
        ...

    def counts(self) -> Mapping[str, int]:
        """How many jobs there are of each status."""
        ...

    def blobs(self) -> set[str]:
        """Every blob that some job needs."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
