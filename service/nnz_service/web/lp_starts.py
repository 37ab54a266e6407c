"""The solution of an earlier linear program as the start of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.dataplane import Reservation
from nnz_service.errors import (
    ConflictError,
    ImpossibleError,
    NotFoundError,
)
from nnz_service.gateway import Parts
from nnz_service.jobs import Job, Status
from nnz_service.repository import bundles
from nnz_service.web.codecs import TensorRequest


def with_start(
    parts: Parts,
    params: Mapping[str, Any],
    asked: TensorRequest,
    owner: str | None,
    held: Reservation | None,
) -> TensorRequest:
    """Return a request with x0 and y0 of the job that ``params["start"]`` names.

    They become inputs of the new job, which needs the earlier one no longer.

    Args:
        parts: Where jobs, matrices and arrays are.
        params: Checked, of a job of kind `lp`.
        asked: The request.
        owner: Whose jobs may be used; None for everybody's.
        held: What the request holds of the bytes that all requests share.

    Raises:
        NotFoundError: There is no such job, or it is not theirs.
        ConflictError: It has not succeeded.
        ImpossibleError: It is of another kind or shape, or found no finite values.
        OverloadedError: There is no room for its values now.
    """
    job = parts.jobs.get(str(params["start"])[:80], owner)
    if job.kind != "lp":
        raise ImpossibleError(
            f"parameters.start is job {job.id} of kind {job.kind!r}; it must be of "
            "kind 'lp'"
        )
    if job.status is not Status.SUCCEEDED or job.result_sha is None:
        raise ConflictError(
            f"parameters.start is job {job.id}, which is {job.status}; it must have "
            "succeeded"
        )
    if held is not None:
        held.add(job.result_bytes)
    x, y = _values(parts, job)
    # Only its shape: that it may be used was checked before.
    check_values(job, x, y, parts.repository.matrix(str(params["matrix"])).shape)
    return replace(asked, tensors=asked.tensors | {"x0": x, "y0": y})


def _values(parts: Parts, job: Job) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        path = parts.repository.blobs.path(str(job.result_sha))
    except NotFoundError:  # it was deleted just now
        raise NotFoundError(f"there is no job {job.id!r}") from None
    found = bundles.load(path, ("x", "y"))
    return found["x"], found["y"]


def check_values(
    job: Job, x: NDArray[Any], y: NDArray[Any], shape: tuple[int, int]
) -> None:
    """Refuse values that cannot be a start on a matrix of that shape.

    Raises:
        ImpossibleError: They are of another shape, or not all finite.
    """
    rows, columns = shape
    if x.size == y.size == 0 < rows + columns:
        raise ImpossibleError(
            f"parameters.start is job {job.id}, which found no values to start from"
        )
    if (y.size, x.size) != (rows, columns):
        raise ImpossibleError(
            f"parameters.start is job {job.id} on a matrix of {y.size} x {x.size}; "
            f"this one is {rows} x {columns}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ImpossibleError(
            f"parameters.start is job {job.id}, whose values are not all finite"
        )
