"""Where jobs are kept: the contract of a store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from nnz_service.jobs.forecast import Outlook
from nnz_service.jobs.job import Job, Status
from nnz_service.jobs.retention import Ended, Usage

#: A job that took its worker down this often, without a new checkpoint in between, is
#: failed rather than tried again.
MAX_ATTEMPTS = 5


class JobStore(Protocol):
    """All methods are synchronous, thread-safe, and durable when they return.

    Where an `owner` is named, the jobs of all others are as if they were not there;
    None sees every job. Any method may raise DatabaseAwayError.
    """

    def submit(
        self,
        kind: str,
        params: Mapping[str, Any],
        inputs_sha: str | None = None,
        idempotency_key: str | None = None,
        owner: str = "",
        most: int | None = None,
    ) -> Job:
        """Write a new queued job down, or find the one that this key of this owner
        made before; a key is forgotten together with its job.

        Args:
            kind: What is to be done.
            params: And how.
            inputs_sha: The blob of its tensors.
            idempotency_key: See above.
            owner: Whose it is.
            most: Queued jobs that this owner may have, this one included.

        Raises:
            ImpossibleError: when the key was used for a different request.
            OverloadedError: when the owner has as many queued jobs as that.
        """
        ...

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """One job.

        Raises:
            NotFoundError: when there is none.
        """
        ...

    def list(
        self,
        limit: int = 100,
        *,
        owner: str | None = None,
        status: Status | None = None,
        kind: str | None = None,
        before: str | None = None,
    ) -> Sequence[Job]:
        """The youngest jobs, youngest first; `before` continues behind that job.

        Raises:
            NotFoundError: when there is no job `before`.
        """
        ...

    def newer(self, seen: Mapping[str, int]) -> Mapping[str, Job | None]:
        """Those of several jobs that have passed the revision which was seen of them;
        None for one that is gone.
        """
        ...

    def outlook(self, job_ids: Collection[str]) -> Mapping[str, Outlook]:
        """What those of several jobs that have not ended can expect."""
        ...

    def request_cancel(self, job_id: str, owner: str | None = None) -> Job:
        """Cancel at once when queued, ask the worker when running, else do nothing."""
        ...

    def delete(
        self,
        job_id: str,
        drop: Callable[[str], object] = str,
        owner: str | None = None,
    ) -> tuple[str, ...]:
        """Forget an ended job, then `release` its blobs; returns those dropped.

        Raises:
            ConflictError: while it has not ended.
        """
        ...

    def release(
        self, blobs: Iterable[str], drop: Callable[[str], object]
    ) -> tuple[str, ...]:
        """Let `drop` have each of these blobs that no job needs; returns them.

        Nobody else can change the store meanwhile: who stores a blob, records a job
        with it and then still finds the blob will keep it.
        """
        ...

    def claim(self, worker: str, kinds: Sequence[str]) -> Job | None:
        """Take a queued job of these kinds, with a fresh token.

        Of owners who have the fewest running, the oldest of the one who was served
        longest ago: nobody waits for all that somebody else has sent.
        """
        ...

    def progress(
        self,
        job_id: str,
        token: int,
        progress: Mapping[str, Any],
        checkpoint: str | None = None,
        seconds: float | None = None,
    ) -> Job:
        """Record how far it is; `checkpoint` replaces the last one unless None, and
        `seconds` are those of computing over all attempts.

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
        result_bytes: int | None = None,
        error: str | None = None,
        seconds: float | None = None,
    ) -> Job:
        """End a running job.

        Raises:
            StaleTokenError: when the claim is no longer this worker's.
        """
        ...

    def requeue_lost(
        self,
        worker: str | None,
        *,
        orderly: bool = False,
        besides: Collection[str] = (),
    ) -> Sequence[Job]:
        """Queue again (or fail, or cancel) what this worker ran when it ended.

        Args:
            worker: None for all of them.
            orderly: It was told to stop: that is not held against its jobs.
            besides: Jobs that it still has.
        """
        ...

    def counts(self) -> Mapping[str, int]:
        """How many jobs there are of each status."""
        ...

    def blobs(self) -> set[str]:
        """Every blob that some job needs."""
        ...

    def usage(self) -> Usage:
        """How many jobs have ended, and what their results take."""
        ...

    def oldest_ended(self, limit: int) -> Sequence[Ended]:
        """Jobs in the order in which they ended."""
        ...

    def drop_inputs(self, limit: int) -> Sequence[str]:
        """Take the inputs from jobs that have ended; returns their blobs, which are
        to be released.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
