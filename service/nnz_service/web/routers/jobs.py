"""/v1/jobs: work that outlives its request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from nnz_service import faults
from nnz_service.errors import (
    ConflictError,
    ImpossibleError,
    MalformedError,
    OverloadedError,
)
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
    job_owner_of,
    name_resource,
    unless_gone,
)
from nnz_service.web.events import EventStream
from nnz_service.web.examples import JOBS
from nnz_service.web.job_kinds import check
from nnz_service.web.job_views import describe
from nnz_service.web.lp_starts import with_start
from nnz_service.web.openapi import (
    answers,
    empty,
    event_answers,
    idempotency_parameter,
    tensor_answers,
    tensor_body,
)
from nnz_service.web.schemas.v1 import JobIn, JobOut, JobResultOut, JobsOut
from nnz_service.web.stages import stages_of

router = APIRouter(tags=["jobs"])

JobId = Annotated[str, Path(description="As the submission answered it.")]
_MAX_KEY = 255
#: Seconds before a stream of events would be cut, in which it ends by itself.
_LAST_WORDS = 5.0


@router.post(
    "/v1/jobs",
    status_code=202,
    responses=answers(
        JobOut,
        "Written down; it will run.",
        *(400, 404, 408, 413, 415, 422, 429, 503),
        status=202,
    ),
    openapi_extra=tensor_body(JobIn, JOBS, idempotency_parameter()),
)
async def submit(request: Request, parts: Served) -> Response:
    """Submit a job.

    `solve` solves A x = b: parameters `matrix`, `method`, `rtol` (1e-5), `atol` (0),
    `maxiter` (10 n), `restart` (30, of gmres), `preconditioner` (none), `time_limit`
    (seconds of computing); inputs `b` [n] or [n, k] and, if there is a guess, `x0` of
    the shape of the result `x`. It has converged when the residual, recomputed from
    the definition, is at most max(rtol ||b||, atol).

    | method | A | preconditioners |
    |---|---|---|
    | `cg` (the default) | symmetric positive definite | none, jacobi, ic0, chebyshev |
    | `minres` | symmetric | the same, which must be positive definite |
    | `bicgstab`, `gmres` | square | none, jacobi, ilu0, ic0, chebyshev |
    | `lsqr` | any shape: least squares | none, jacobi |
    | `direct` | square: LU factors, then refinement | none |

    The result says `status` (converged, iteration_limit, time_limit, breakdown,
    not_spd, singular, numerical_error, cancelled), `message`, `iterations`, `residual`,
    `relative_residual`, `backward_error` and `componentwise_backward_error`; with
    several right-hand sides these are the worst, and `columns` has those of each.

    `cg` is `solve` with that method.

    `lp` solves min c'x, lc <= A x <= uc, lv <= x <= uv: parameters `matrix` (of a
    matrix, or of an MPS file put as `application/x-mps`), `method` (auto, pdhg, highs),
    `eps_rel` and `eps_abs` (1e-6), `max_iterations`, `time_limit` (s), `maximize`,
    `offset` and, for pdhg, `presolve` (true unless it has a start), `start` (an lp job
    of this shape, whose solution it starts from), `polish` (relative residuals that
    polishing is to reach); inputs `c`, `lc`, `uc`, `lv`, `uv` where they are not stored
    or differ, `x0` and `y0` instead of `start`; results `x` [n], `y` [m],
    `reduced_costs` [n] and, where there is no solution, perhaps the proof `ray`.

    `op` is an operation between matrices that may take long: parameters `op` (spgemm,
    add, scale, sddmm) and those that it has as an operation. Its `result.matrix` is the
    matrix that it made. It goes on by rows after a restart.

    `factorize` makes the LU factors of `matrix`, which stay with the worker within its
    budget and serve every later `solve` by the method `direct`; `result.factors` says
    `entries`, `bytes` and whether they are `kept`.

    `graph` takes entries (i, j) of `matrix` as edges from i to j: `algorithm` pagerank
    (`damping`, `tol`, `maxiter`; `ranks` [n]), bfs (`source`; `levels` [n]), sssp
    (`source`; `distances` [n]), components (`labels` [n]) or triangles. `eigs` gives
    `k` eigenpairs of a symmetric `matrix`: `which` (largest, smallest, magnitude),
    `tol`, `maxiter`; `eigenvalues` [k], `eigenvectors` [n, k], `residuals`.

    With an `Idempotency-Key`, sending the same job again gives the one that is there,
    for as long as that is kept.
    """
    key, owner = _idempotency_key(request), caller_of(request).id
    body = await read_body(request, parts.limits.max_body)
    asked = await parse_body(request, body, parts.limits.max_json, least=0)
    kind, params, asked = await _checked(request, parts, asked)
    write = partial(_write_down, parts, kind, params, asked)
    row = await asyncio.to_thread(write, key, owner)
    name_resource(request, row["id"])
    await parts.wake()
    faults.point("job.before-reply")
    return Json(row, status_code=202)


@router.get("/v1/jobs", responses=answers(JobsOut, "The youngest jobs.", 400, 404, 503))
async def list_jobs(
    request: Request,
    parts: Served,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
    status: Annotated[Status | None, Query(description="Only these.")] = None,
    kind: Annotated[
        str | None,
        Query(pattern="^[a-z0-9_-]{1,32}$", description="Only these, such as cg."),
    ] = None,
    before: Annotated[
        str | None, Query(description="Id of a job: only those submitted before it.")
    ] = None,
) -> Response:
    """List jobs, youngest first; the last one's id as `before` gives the next page."""

    def look() -> list[dict[str, Any]]:
        found = parts.jobs.list(
            limit, owner=job_owner_of(request), status=status, kind=kind, before=before
        )
        return describe(parts, found)

    return Json({"jobs": await asyncio.to_thread(look)})


@router.get(
    "/v1/jobs/{job_id}", responses=answers(JobOut, "The job.", 400, 404, 429, 503)
)
async def get_job(
    request: Request,
    parts: Served,
    job_id: JobId,
    wait: Annotated[
        float, Query(ge=0, le=60, description="Seconds to wait for its end.")
    ] = 0.0,
) -> Response:
    """Return a job, with `wait` as soon as it has ended."""
    job = await asyncio.to_thread(parts.jobs.get, job_id, job_owner_of(request))
    if wait > 0 and not job.status.ended:
        job = await unless_gone(request, _when_ended(parts, job, wait))
    return Json(await asyncio.to_thread(_described, parts, job))


@router.get(
    "/v1/jobs/{job_id}/events", responses=event_answers(JobOut, 400, 404, 429, 503)
)
async def watch_job(request: Request, parts: Served, job_id: JobId) -> Response:
    """Follow a job by server-sent events until it ends.

    `status`, `progress` and, as the last, `end`; the data of each is the job. Ids
    count its changes: with the last one as `Last-Event-ID` a stream goes on where it
    was cut, and is a 204 when there is nothing left to tell.
    """
    seen = _last_event(request)
    job = await asyncio.to_thread(parts.jobs.get, job_id, job_owner_of(request))
    if job.status.ended and seen >= job.revision:
        return Response(status_code=204)
    left = stages_of(request).remaining()
    seconds = 3600.0 if left is None else left - _LAST_WORDS
    return EventStream(parts, job, seen, seconds)


@router.get(
    "/v1/jobs/{job_id}/result", responses=tensor_answers(JobResultOut, 404, 409)
)
async def get_result(request: Request, parts: Served, job_id: JobId) -> Response:
    """Return the tensors that a job made, as bytes behind a JSON header.

    With `Accept: application/json` they come as JSON numbers.
    """
    job = await asyncio.to_thread(parts.jobs.get, job_id, job_owner_of(request))
    if job.status is not Status.SUCCEEDED:
        raise ConflictError(f"job {job_id} has no result: it is {_state(job)}")
    reservation = stages_of(request).reservation
    if reservation is not None:  # many callers could ask for the same large result
        reservation.grow(job.result_bytes)
    arrays = await asyncio.to_thread(_arrays, parts, job.result_sha)
    binary = "application/json" not in request.headers.get("accept", "")
    return await tensor_answer(
        {"id": job.id, "result": job.result or {}},
        arrays,
        TensorRequest({}, {}, {}, (), binary),
        accept_encoding=request.headers.get("accept-encoding", ""),
        binary_default=binary,
    )


@router.post(
    "/v1/jobs/{job_id}/cancel", responses=answers(JobOut, "The job.", 404, 503)
)
async def cancel_job(request: Request, parts: Served, job_id: JobId) -> Response:
    """Stop a job soon; one that has already ended is returned as it is."""
    cancel = parts.jobs.request_cancel
    job = await asyncio.to_thread(cancel, job_id, job_owner_of(request))
    await parts.wake()
    return Json(await asyncio.to_thread(_described, parts, job))


@router.delete(
    "/v1/jobs/{job_id}",
    status_code=204,
    responses=empty("It is forgotten.", 404, 409, 503, status=204),
)
async def delete_job(request: Request, parts: Served, job_id: JobId) -> Response:
    """Forget an ended job and its result."""
    await asyncio.to_thread(_forget, parts, job_id, job_owner_of(request))
    return Response(status_code=204)


async def _checked(
    request: Request, parts: Parts, asked: TensorRequest
) -> tuple[str, dict[str, Any], TensorRequest]:
    """Return kind, parameters and all inputs of a job that can run."""
    whose = owner_of(caller_of(request))
    kind, params = await asyncio.to_thread(check, parts.repository, asked, whose)
    if kind == "lp" and "start" in params:
        seen, held = job_owner_of(request), stages_of(request).reservation
        asked = await asyncio.to_thread(with_start, parts, params, asked, seen, held)
    return kind, params, asked


async def _when_ended(parts: Parts, job: Job, wait: float) -> Job:
    until = time.monotonic() + wait
    with parts.watch.seat():
        while not job.status.ended:
            left = until - time.monotonic()
            newer = await parts.watch.change(job.id, job.revision, left)
            if newer is None:
                break
            job = newer
    return job


def _described(parts: Parts, job: Job) -> dict[str, Any]:
    return describe(parts, [job])[0]


def _write_down(
    parts: Parts,
    kind: str,
    params: dict[str, Any],
    asked: TensorRequest,
    key: str | None,
    owner: str,
) -> dict[str, Any]:
    inputs = bundles.save(parts.repository.blobs, asked.tensors)
    most = parts.limits.job_queue
    try:
        job = parts.jobs.submit(kind, params, inputs.sha256, key, owner, most)
    except (OverloadedError, ImpossibleError):
        parts.jobs.release((inputs.sha256,), _dropper(parts))
        raise
    faults.point("job.after-commit")
    if job.inputs_sha is None:  # found by its key, it ended long ago
        parts.jobs.release((inputs.sha256,), _dropper(parts))
    elif not inputs.path.is_file():  # an equal job was forgotten just before
        bundles.save(parts.repository.blobs, asked.tensors)
    return _described(parts, job)


def _arrays(parts: Parts, sha256: str | None) -> dict[str, Any]:
    if sha256 is None:
        return {}
    return bundles.load(parts.repository.blobs.path(sha256))


def _forget(parts: Parts, job_id: str, owner: str | None) -> None:
    parts.jobs.delete(job_id, _dropper(parts), owner)


def _dropper(parts: Parts) -> Callable[[str], None]:
    """Deletes blobs, but not those of models and matrices."""

    def drop(sha256: str) -> None:
        if not parts.repository.needs(sha256):
            parts.repository.blobs.delete(sha256)

    return drop


def _state(job: Job) -> str:
    return f"{job.status}: {job.error}" if job.error else str(job.status)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= _MAX_KEY and key.isprintable()):
        raise MalformedError(
            f"Idempotency-Key must have 1 to {_MAX_KEY} printable characters"
        )
    return key


def _last_event(request: Request) -> int:
    text = request.headers.get("last-event-id", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise MalformedError(f"Last-Event-ID is {text[:40]!r}; it must be a number")
    return int(text)
