"""/v2 and its health: is the server there, and can it compute."""

from __future__ import annotations

from fastapi import APIRouter, Response

from nnz_service.errors import UnavailableError
from nnz_service.gateway import about
from nnz_service.web.answers import Json
from nnz_service.web.deps import Served
from nnz_service.web.openapi import answers, empty
from nnz_service.web.schemas.oip import ServerMetadata

router = APIRouter(tags=["server"])


@router.head("/v2/health/live", include_in_schema=False)
@router.get(
    "/v2/health/live", response_class=Response, responses=empty("The server answers.")
)
async def live() -> Response:
    """Say that the process answers; nothing else is asked of it."""
    return Response()


@router.head("/v2/health/ready", include_in_schema=False)
@router.get(
    "/v2/health/ready",
    response_class=Response,
    responses=empty("The server computes.", 503),
)
async def ready(parts: Served) -> Response:
    """Say whether the worker is up and has loaded what it should hold."""
    if parts.drain.begun:
        raise UnavailableError("not ready: the server is stopping")
    if not parts.dataplane.ready:
        raise UnavailableError(f"not ready: {parts.dataplane.detail or 'starting'}")
    return Response()


@router.get("/v2", responses=answers(ServerMetadata, "Name, version, extensions."))
async def server_metadata(parts: Served) -> Response:
    """Name the server, its version and the protocol extensions that it has."""
    lending = parts.controls.regions.enabled
    return Json(about.server_metadata(lending=lending))
