"""/v1/jobs: work that outlives its request."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from nnz_service.errors import ConflictError, MalformedError
from nnz_service.gateway.ownership import owner_of
from nnz_service.jobs import Job, Status
from nnz_service.repository import bundles
from nnz_service.web.answers import Json, tensor_answer
from nnz_service.web.bodies import parse_body, read_body
from nnz_service.web.codecs import TensorRequest
from nnz_service.web.deps import (
    Parts,
    Served,
    caller_of,
    name_resource,
    unless_gone,
)
from nnz_service.web.job_kinds import check
from nnz_service.web.openapi import (
    answers,
    empty,
    idempotency_parameter,
    tensor_answers,
    tensor_body,
)
from nnz_service.web.schemas.v1 import JobIn, JobOut, JobResultOut, JobsOut

router = APIRouter(tags=["jobs"])

JobId = Annotated[str, Path(description="As the submission answered it.")]
#: Seconds between two looks at the store while a caller waits: grows from, up to.
_FIRST_LOOK, _LAST_LOOK = 0.02, 0.25
_MAX_KEY = 255
_EXAMPLE = {
    "kind": "cg",
    "parameters": {"matrix": "m-0123456789abcdef", "rtol": 1e-8},
    "inputs": [
        {"name": "b", "shape": [3], "datatype": "FP64", "data": [1.0, 2.0, 3.0]}
    ],
}


@router.post(
    "/v1/jobs",
    status_code=202,
    responses=answers(
        JobOut,
        "Written down; it will run.",
        *(400, 404, 408, 413, 415, 422, 429),
        status=202,
    ),
    openapi_extra=tensor_body(JobIn, _EXAMPLE, idempotency_parameter()),
)
async def submit(request: Request, parts: Served) -> Response:
    """Submit a job.

    `cg` solves A x = b by conjugate gradients, A symmetric positive definite:
    parameters `matrix`, `rtol` (1e-5), `atol` (0), `maxiter` (10 n), `preconditioner`
    (none, jacobi); inputs `b` [n] and, if there is a guess, `x0` [n]; result `x` [n].

    With an `Idempotency-Key`, sending the same job again gives the one that is there.
    """
    key = _idempotency_key(request)
    body = await read_body(request, parts.limits.max_body)
    asked = await parse_body(request, body, parts.limits.max_json)
    owner = owner_of(caller_of(request))
    kind, params = await asyncio.to_thread(check, parts.repository, asked, owner)
    job = await asyncio.to_thread(_write_down, parts, kind, params, asked, key)
    name_resource(request, job.id)
    await parts.wake()
    return Json(job.to_json(), status_code=202)


@router.get("/v1/jobs", responses=answers(JobsOut, "The youngest jobs.", 400))
async def list_jobs(
    parts: Served, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """List jobs, youngest first."""
    jobs = await asyncio.to_thread(parts.jobs.list, limit)
    return Json({"jobs": [job.to_json() for job in jobs]})


@router.get("/v1/jobs/{job_id}", responses=answers(JobOut, "The job.", 400, 404))
async def get_job(
    request: Request,
    parts: Served,
    job_id: JobId,
    wait: Annotated[
        float, Query(ge=0, le=60, description="Seconds to wait for its end.")
    ] = 0.0,
) -> Response:
    """Return a job, with `wait` as soon as it has ended."""
    job = await unless_gone(request, _when_ended(parts, job_id, wait))
    return Json(job.to_json())


@router.get(
    "/v1/jobs/{job_id}/result", responses=tensor_answers(JobResultOut, 404, 409)
)
async def get_result(request: Request, parts: Served, job_id: JobId) -> Response:
    """Return the tensors that a job made, as bytes behind a JSON header.

    With `Accept: application/json` they come as JSON numbers.
    """
    job = await asyncio.to_thread(parts.jobs.get, job_id)
    if job.status is not Status.SUCCEEDED:
        raise ConflictError(f"job {job_id} has no result: it is {_state(job)}")
    arrays = await asyncio.to_thread(_arrays, parts, job.result_sha)
    binary = "application/json" not in request.headers.get("accept", "")
    return await tensor_answer(
        {"id": job.id, "result": job.result or {}},
        arrays,
        TensorRequest({}, {}, {}, (), binary),
        accept_encoding=request.headers.get("accept-encoding", ""),
        binary_default=binary,
    )


@router.post("/v1/jobs/{job_id}/cancel", responses=answers(JobOut, "The job.", 404))
async def cancel_job(parts: Served, job_id: JobId) -> Response:
    """Stop a job soon; one that has already ended is returned as it is."""
    job = await asyncio.to_thread(parts.jobs.request_cancel, job_id)
    await parts.wake()
    return Json(job.to_json())


@router.delete(
    "/v1/jobs/{job_id}",
    status_code=204,
    responses=empty("It is forgotten.", 404, 409, status=204),
)
async def delete_job(parts: Served, job_id: JobId) -> Response:
    """Forget an ended job and its result."""
    await asyncio.to_thread(_forget, parts, job_id)
    return Response(status_code=204)


async def _when_ended(parts: Parts, job_id: str, wait: float) -> Job:
    until = time.monotonic() + wait
    pause = _FIRST_LOOK
    while True:
        job = await asyncio.to_thread(parts.jobs.get, job_id)
        left = until - time.monotonic()
        if job.status.ended or left <= 0 or parts.drain.begun:
            return job
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, _LAST_LOOK)


def _write_down(
    parts: Parts,
    kind: str,
    params: dict[str, Any],
    asked: TensorRequest,
    key: str | None,
) -> Job:
    inputs = bundles.save(parts.repository.blobs, asked.tensors)
    job = parts.jobs.submit(kind, params, inputs.sha256, key)
    if not inputs.path.is_file():  # an equal job was forgotten just before
        bundles.save(parts.repository.blobs, asked.tensors)
    return job


def _arrays(parts: Parts, sha256: str | None) -> dict[str, Any]:
    if sha256 is None:
        return {}
    return bundles.load(parts.repository.blobs.path(sha256))


def _forget(parts: Parts, job_id: str) -> None:
    kept = parts.repository.used_blobs()

    def drop(sha256: str) -> None:
        if sha256 not in kept:
            parts.repository.blobs.delete(sha256)

    parts.jobs.delete(job_id, drop)


def _state(job: Job) -> str:
    return f"{job.status}: {job.error}" if job.error else str(job.status)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= _MAX_KEY and key.isprintable()):
        raise MalformedError(
            f"Idempotency-Key must have 1 to {_MAX_KEY} printable characters"
        )
    return key
