"""Idempotency keys: each belongs to the caller who made it."""

from __future__ import annotations

import hashlib

from nnz_service.errors import ImpossibleError


def digest(owner: str, key: str) -> str:
    """What the store keeps of a key: unique for an owner and a key."""
    return hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()


def reused(key: str, job_id: str) -> ImpossibleError:
    """The error of a key that comes again with something else."""
    return ImpossibleError(
        f"Idempotency-Key {key!r} was used for other work, job {job_id}: send the same "
        "kind, parameters and inputs to find that job, or a new key for a new one"
    )
