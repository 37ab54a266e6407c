"""What a front door accepts, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnz_service.settings import Settings

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on requests; the defaults are those of the settings.

    Args:
        max_body: Bytes of a tensor body, also after decompression.
        max_json: Bytes of the JSON part of a body.
        max_upload: Bytes of a model or matrix file, also after decompression.
        request_timeout: Seconds from the first byte to the answer.
        body_timeout: Seconds without a byte after which a body is given up.
        max_inflight: Requests that compute or upload at the same time.
        max_inflight_bytes: Bytes that their bodies may hold together.
        job_queue: Jobs of one owner that may wait.
        job_ttl: Seconds for which a job that has ended is kept.
        devices: Workers that compute jobs.
    """

    max_body: int = 64 * _MIB
    max_json: int = 4 * _MIB
    max_upload: int = 4096 * _MIB
    request_timeout: float = 60.0
    body_timeout: float = 20.0
    max_inflight: int = 256
    max_inflight_bytes: int = 2048 * _MIB
    job_queue: int = 10_000
    job_ttl: float = 7 * 86400.0
    devices: int = 1


def limits_of(settings: Settings) -> Limits:
    """Take the bounds on requests out of the settings."""
    return Limits(
        max_body=settings.max_body,
        max_json=settings.max_json,
        max_upload=settings.max_upload,
        request_timeout=settings.request_timeout,
        body_timeout=settings.body_timeout,
        max_inflight=settings.max_inflight,
        max_inflight_bytes=settings.max_inflight_bytes,
        job_queue=settings.job_queue,
        job_ttl=settings.job_ttl,
    )
