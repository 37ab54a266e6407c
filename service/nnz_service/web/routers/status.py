"""/docs, /v1/devices, /v1/stats, /v1/usage, /metrics: what the server has and does."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST

from nnz_service import usage
from nnz_service.errors import ServiceError
from nnz_service.web.answers import Json
from nnz_service.web.deps import Served, caller_of, visible_rows
from nnz_service.web.docs import page
from nnz_service.web.openapi import answers, errors
from nnz_service.web.schemas.v1 import DevicesOut, StatsOut, UsageOut
from nnz_service.web.scrape import scrape
from nnz_service.web.stages import stages_of
from nnz_service.web.usage import usage_of

router = APIRouter(tags=["server"])

#: A worker that takes longer to say how it is counts as down.
_SCRAPE_MICROSECONDS = 2_000_000


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """Describe the interface to people; it works without any network."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return HTMLResponse(
        page(request.app.openapi()), headers={"Content-Security-Policy": policy}
    )


@router.get("/v1/devices", responses=answers(DevicesOut, "Every back-end.", 503))
async def devices(request: Request, parts: Served) -> Response:
    """Say where the server can compute, and why not elsewhere."""
    reply = await parts.call(request, "devices", {})
    return Json({"devices": reply.result["devices"]})


@router.get("/v1/stats", responses=answers(StatsOut, "Counters.", 503))
async def stats(request: Request, parts: Served) -> Response:
    """Count what every servable did, and say what waits and runs now.

    `processes` describes the process that answers (`web`) and the `workers`, and says
    how often each of the server was started again (`restarts`).
    """
    result = dict((await parts.call(request, "stats", {})).result)
    result.pop("usage", None)  # of other keys: see `own_usage`
    ready, detail = parts.dataplane.ready, parts.dataplane.detail
    processes = {
        "web": usage.process_facts(),
        "workers": result.get("processes", []),
        "restarts": parts.metrics.restarts(),
    }
    rows = await visible_rows(request, parts, result["model_stats"])
    resident = result.get("resident", {"bytes": 0, "budget": None, "matrices": []})
    held = await visible_rows(request, parts, resident["matrices"])
    return Json(
        {
            **result,
            "model_stats": rows,
            "resident": {**resident, "matrices": held},
            "worker": {"ready": ready, "detail": detail},
            "processes": processes,
        }
    )


@router.get("/v1/usage", responses=answers(UsageOut, "Seconds of computing.", 503))
async def own_usage(request: Request, parts: Served) -> Response:
    """Say what was computed for the caller's key, for requests and for jobs.

    All of it counts against the key's quota of computing, when it is computed: also
    what failed or was cancelled. An admin sees every key.
    """
    counted = (await parts.call(request, "stats", {})).result.get("usage", {})
    return Json(usage_of(caller_of(request), counted, parts.admission))


@router.get(
    "/metrics",
    responses={
        200: {
            "description": "The Prometheus text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **errors(),
    },
    response_class=Response,
)
async def metrics(request: Request, parts: Served) -> Response:
    """Write every metric, of all processes and by our names and Triton's.

    Those of the worker are missing while it is down. Series of single matrices and
    keys are there for who may see them: scrape with an admin key for all of them.
    """
    stages_of(request).shorten(_SCRAPE_MICROSECONDS)
    try:
        stats = (await parts.call(request, "stats", {})).result
    except ServiceError:
        stats = None
    text = await scrape(parts, caller_of(request), stats)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
