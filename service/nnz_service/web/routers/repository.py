"""/v2/repository: what is stored; load and unload it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from nnz_service.errors import ImpossibleError, MalformedError
from nnz_service.gateway.residence import load, states, unload
from nnz_service.web.answers import Json
from nnz_service.web.bodies import read_json
from nnz_service.web.deps import Parts, Served
from nnz_service.web.names import Name
from nnz_service.web.openapi import answers, empty, json_body
from nnz_service.web.schemas.oip import IndexEntry, IndexQuery, LoadParameters

router = APIRouter(tags=["repository"])


@router.post(
    "/v2/repository/index",
    responses=answers(list[IndexEntry], "Every stored model and matrix.", 400),
    openapi_extra=json_body(IndexQuery),
)
async def index(request: Request, parts: Served) -> Response:
    """List every stored servable with its state; the body may ask for ready ones."""
    query = await read_json(request, parts.limits.max_json)
    only_ready = query.get("ready", False)
    if not isinstance(only_ready, bool):
        raise MalformedError("'ready' must be true or false")
    rows = [
        {"name": name, "version": version, "state": state, "reason": reason}
        for (name, version), (state, reason) in sorted((await states(parts)).items())
        if state == "READY" or not only_ready
    ]
    return Json(rows)


@router.post(
    "/v2/repository/models/{name}/load",
    response_class=Response,
    responses=empty("It is resident.", 400, 404, 422, 503),
    openapi_extra=json_body(LoadParameters),
)
async def load_model(request: Request, parts: Served, name: Name) -> Response:
    """Make a stored model (its newest version) or a matrix resident.

    Files and configurations in the body are refused: put a model with
    `PUT /v1/models/{name}`.
    """
    given = await _parameters(request, parts)
    if given:
        raise ImpossibleError(
            f"load takes no parameters, got {', '.join(sorted(given))[:200]}; "
            f"send a new model file with PUT /v1/models/{name}"
        )
    async with parts.turns.of(name):
        await load(parts, name)
    return Response()


@router.post(
    "/v2/repository/models/{name}/unload",
    response_class=Response,
    responses=empty("It is not resident any more.", 400, 404, 503),
    openapi_extra=json_body(LoadParameters),
)
async def unload_model(request: Request, parts: Served, name: Name) -> Response:
    """Let go of every version of a model, or of a matrix; the files stay."""
    await _parameters(request, parts)
    async with parts.turns.of(name):
        await unload(parts, name)
    return Response()


async def _parameters(request: Request, parts: Parts) -> dict[str, Any]:
    fields = await read_json(request, parts.limits.max_json)
    given = fields.get("parameters") or {}
    if not isinstance(given, dict):
        raise MalformedError("'parameters' must be an object")
    return given
