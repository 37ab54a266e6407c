"""A job: work that outlives the request which asked for it."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from nnz_service.errors import ConflictError


class Status(enum.StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return not TRANSITIONS[self]


#: Every change of status that a store may make. Running to queued: the worker was lost.
TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLED}),
    Status.RUNNING: frozenset(
        {Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}
    ),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
ENDED = tuple(status.value for status in Status if status.ended)


class StaleTokenError(ConflictError):
    """Somebody else has claimed the job since; this worker must drop it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as the store holds it; times are seconds since 1970.

    Args:
        inputs_sha: Blob with the input arrays (`repository.bundles`); None again some
            time after the end, when nobody needs them any more.
        token: Fencing token; grows with each claim, so that a worker which was thought
            dead cannot write over its successor.
        checkpoint: Blob with the solver's state, from which a later attempt resumes.
        result_sha: Blob with the output arrays, when it succeeded.
        result_bytes: Size of that blob.
        owner: Id of the caller who submitted it; empty for anybody.
        attempts: Claims so far.
        fruitless: Claims since the last checkpoint.
        seconds: Of computing so far.
        revision: Grows with each change, from 1.
    """

    id: str
    kind: str
    params: dict[str, Any]
    status: Status
    created: float
    inputs_sha: str | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    result_sha: str | None = None
    result_bytes: int = 0
    error: str | None = None
    started: float | None = None
    finished: float | None = None
    cancel_requested: bool = False
    attempts: int = 0
    fruitless: int = 0
    token: int = 0
    worker: str | None = None
    checkpoint: str | None = None
    owner: str = ""
    seconds: float = 0.0
    revision: int = 1

    @property
    def blobs(self) -> tuple[str, ...]:
        """Blobs that the job needs."""
        return tuple(
            sha for sha in (self.inputs_sha, self.result_sha, self.checkpoint) if sha
        )

    @property
    def subject(self) -> str:
        """What it is about: jobs of one kind on one matrix take about the same time."""
        return str(self.params.get("matrix", ""))[:64]

    def to_json(self) -> dict[str, Any]:
        """What a caller may see."""
        names = (
            "id", "kind", "params", "status", "progress", "result", "error", "created",
            "started", "finished", "cancel_requested", "attempts", "owner", "seconds",
            "revision",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


def fingerprint(kind: str, params: Mapping[str, Any], inputs_sha: str | None) -> str:
    """SHA-256 of what was asked for; equal requests have equal fingerprints."""
    asked = [kind, dict(params), inputs_sha]
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()
