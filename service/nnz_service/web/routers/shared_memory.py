"""/v2/systemsharedmemory and /v2/cudasharedmemory: memory that clients lend."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from nnz_service.gateway.regions import refuse_cuda
from nnz_service.web.answers import Json
from nnz_service.web.bodies import read_json
from nnz_service.web.deps import Served
from nnz_service.web.names import REGION, Region, RegionName
from nnz_service.web.openapi import answers, empty, json_body
from nnz_service.web.schemas.oip import RegionIn, RegionOut

router = APIRouter(tags=["shared memory"])

_OF_REGION = {"parameters": [REGION]}
_SYSTEM = "/v2/systemsharedmemory"
_CUDA = "/v2/cudasharedmemory"


@router.get(
    f"{_SYSTEM}/region/{{name}}/status",
    responses=answers(list[RegionOut], "The region.", 404),
    openapi_extra=_OF_REGION,
)
@router.get(f"{_SYSTEM}/status", responses=answers(list[RegionOut], "All regions."))
async def status(parts: Served, name: Region = None) -> Response:
    """List the regions that clients have registered, or one."""
    found = parts.controls.regions.status(name)
    return Json([region.to_json() for region in found])


@router.post(
    f"{_SYSTEM}/region/{{name}}/register",
    responses=empty("Registered.", 400, 413, 422, 501, 503),
    openapi_extra=json_body(RegionIn),
    response_class=Response,
)
async def register(request: Request, parts: Served, name: RegionName) -> Response:
    """Take a part of a shared memory object of this machine as a region.

    The object must belong to the user that runs the server. Regions are common to all
    keys with the scope admin, and no other may name one, for inference either.
    """
    asked = await read_json(request, parts.limits.max_json)
    key, offset, size = (asked.get(n) for n in ("key", "offset", "byte_size"))
    regions = parts.controls.regions
    await asyncio.to_thread(
        regions.register, name, key, 0 if offset is None else offset, size
    )
    return Response()


@router.post(
    f"{_SYSTEM}/region/{{name}}/unregister",
    responses=empty("Forgotten.", 501, 503),
    openapi_extra=_OF_REGION,
    response_class=Response,
)
@router.post(
    f"{_SYSTEM}/unregister",
    responses=empty("Forgotten.", 501, 503),
    response_class=Response,
)
async def unregister(parts: Served, name: Region = None) -> Response:
    """Forget one region, or all; the memory stays the client's."""
    await asyncio.to_thread(parts.controls.regions.unregister, name)
    return Response()


@router.get(
    f"{_CUDA}/region/{{name}}/status",
    responses=answers(list[RegionOut], "None."),
    openapi_extra=_OF_REGION,
)
@router.get(f"{_CUDA}/status", responses=answers(list[RegionOut], "None."))
async def cuda_status() -> Response:
    """List the regions on a GPU that clients have registered: none."""
    return Json([])


@router.post(
    f"{_CUDA}/region/{{name}}/register",
    responses=empty("Never.", 501),
    openapi_extra=_OF_REGION,
    response_class=Response,
)
async def cuda_register() -> Response:
    """Refuse memory on a GPU, which this server does not take."""
    refuse_cuda()


@router.post(
    f"{_CUDA}/region/{{name}}/unregister",
    responses=empty("Nothing to forget."),
    openapi_extra=_OF_REGION,
    response_class=Response,
)
@router.post(
    f"{_CUDA}/unregister",
    responses=empty("Nothing to forget."),
    response_class=Response,
)
async def cuda_unregister() -> Response:
    """Forget nothing: clients that use only system shared memory ask for it too."""
    return Response()
