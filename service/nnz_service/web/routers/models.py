"""/v1/models: put a model file under a name and infer on it at once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from nnz_service.errors import NotFoundError, UnavailableError
from nnz_service.gateway.residence import forget, load, states, unload
from nnz_service.gateway.servables import target
from nnz_service.repository import ModelRecord
from nnz_service.web.answers import Json
from nnz_service.web.deps import Parts, Served
from nnz_service.web.names import Name
from nnz_service.web.openapi import answers, empty, file_body
from nnz_service.web.schemas.v1 import (
    ModelOut,
    ModelsOut,
    PlannedModelOut,
    ResidenceOut,
)
from nnz_service.web.uploads import take_model

router = APIRouter(tags=["models"])

VersionQuery = Annotated[
    str | None, Query(description="Digits; the newest when left out.")
]
_UPLOAD_ERRORS = (400, 408, 409, 413, 415, 422, 429, 503)


@router.put(
    "/v1/models/{name}",
    status_code=201,
    responses={
        200: {"model": ModelOut, "description": "The same content was there."},
        **answers(ModelOut, "Stored and resident.", *_UPLOAD_ERRORS, status=201),
    },
    openapi_extra=file_body("application/octet-stream"),
)
async def put_model(
    request: Request, parts: Served, name: Name, version: VersionQuery = None
) -> Response:
    """Store an ONNX file as a version of a model and make it ready for infer.

    Without a version, new content becomes the next one. A file with nodes that
    cannot run is refused, and every such node is named in `nodes`.
    """
    record, new = await take_model(request, parts, name, version)
    return Json(await _describe(parts, record), status_code=201 if new else 200)


@router.get("/v1/models", responses=answers(ModelsOut, "Every version.", 503))
async def list_models(parts: Served) -> Response:
    """List every version of every model, by name, newest version first."""
    found = await states(parts)
    records = await asyncio.to_thread(parts.repository.models)
    return Json({"models": [_row(record, found) for record in records]})


@router.get(
    "/v1/models/{name}",
    responses=answers(PlannedModelOut, "The model and its plan.", 404, 503),
)
async def get_model(
    request: Request, parts: Served, name: Name, version: VersionQuery = None
) -> Response:
    """Describe one version of a model, and layer by layer how it runs and why."""
    target(name, version)
    record = await asyncio.to_thread(parts.repository.model, name, version)
    records = await asyncio.to_thread(parts.repository.models)
    plan: list[dict[str, Any]] = []
    with contextlib.suppress(NotFoundError, UnavailableError):
        params = target(name, record.version)
        plan = (await parts.call(request, "explain", params)).result["rows"]
    row = await _describe(parts, record)
    row["versions"] = [found.version for found in records if found.name == name]
    return Json({**row, "plan": plan})


@router.delete(
    "/v1/models/{name}",
    status_code=204,
    responses=empty("It is gone.", 404, 503, status=204),
)
async def delete_model(
    parts: Served, name: Name, version: VersionQuery = None
) -> Response:
    """Remove a version of a model, or all of them, file and all.

    A file in the folder of models stays, and is found again at the next start.
    """
    target(name, version)
    async with parts.turns.of(name):
        await forget(parts, name, version)
    return Response(status_code=204)


@router.post(
    "/v1/models/{name}/load",
    responses=answers(ResidenceOut, "It is resident.", 404, 422, 503),
)
async def load_model(
    parts: Served, name: Name, version: VersionQuery = None
) -> Response:
    """Make a stored model resident; it stays so across restarts."""
    async with parts.turns.of(name):
        info = await load(parts, name, version)
    return Json({"name": name, "version": info["version"], "state": "READY"})


@router.post(
    "/v1/models/{name}/unload",
    responses=answers(ResidenceOut, "It is not resident any more.", 404, 503),
)
async def unload_model(
    parts: Served, name: Name, version: VersionQuery = None
) -> Response:
    """Free the memory of a model, all versions unless one is named; files stay."""
    async with parts.turns.of(name):
        versions = await unload(parts, name, version)
    return Json({"name": name, "version": versions[0], "state": "UNAVAILABLE"})


async def _describe(parts: Parts, record: ModelRecord) -> dict[str, Any]:
    return _row(record, await states(parts))


def _row(
    record: ModelRecord, found: dict[tuple[str, str], tuple[str, str]]
) -> dict[str, Any]:
    names = ("name", "version", "sha256", "bytes", "source", "created")
    row = {name: getattr(record, name) for name in names}
    state, reason = found.get((record.name, record.version), ("UNAVAILABLE", ""))
    row |= {"state": state, "reason": reason}
    return {**row, "inputs": record.inputs, "outputs": record.outputs}
