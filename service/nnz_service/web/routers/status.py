"""/docs, /v1/devices, /v1/stats and /metrics: what the server has and does."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST

from nnz_service.errors import ServiceError
from nnz_service.web.answers import Json
from nnz_service.web.deps import Served, visible_rows
from nnz_service.web.docs import page
from nnz_service.web.openapi import answers, errors
from nnz_service.web.schemas.v1 import DevicesOut, StatsOut
from nnz_service.web.stages import stages_of
from nnz_service.web.worker_metrics import families

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
    """Count what every servable did, and say what waits and runs now."""
    found = (await parts.call(request, "stats", {})).result
    rows = await visible_rows(request, parts, found["model_stats"])
    ready, detail = parts.dataplane.ready, parts.dataplane.detail
    worker = {"ready": ready, "detail": detail}
    return Json({**found, "model_stats": rows, "worker": worker})


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
    """Write every metric; those of the worker are missing while it is down."""
    stages_of(request).shorten(_SCRAPE_MICROSECONDS)
    try:
        reply = await parts.call(request, "stats", {})
    except ServiceError:
        more = families(None)
    else:
        more = families(reply.result)
    return Response(parts.metrics.render(more), media_type=CONTENT_TYPE_LATEST)
