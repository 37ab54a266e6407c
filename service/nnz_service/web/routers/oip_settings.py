"""/v2/logging and /v2/trace: what clients may change while the server runs."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from nnz_service.gateway.servables import target
from nnz_service.web.answers import Json
from nnz_service.web.bodies import read_json
from nnz_service.web.deps import Served
from nnz_service.web.names import Name
from nnz_service.web.openapi import answers, json_body
from nnz_service.web.schemas.oip import LogSettings, TraceSettings

router = APIRouter(tags=["server"])

_MODEL_TRACE = "/v2/models/{name}/trace/setting"


@router.get("/v2/logging", responses=answers(LogSettings, "The settings."))
async def log_settings(parts: Served) -> Response:
    """Say which lines are logged."""
    return Json(parts.controls.logging.settings())


@router.post(
    "/v2/logging",
    responses=answers(LogSettings, "The settings.", 400, 422, 503),
    openapi_extra=json_body(LogSettings),
)
async def set_log_settings(request: Request, parts: Served) -> Response:
    """Change which lines are logged, until the server starts again.

    Null takes a setting back to NNZ_LOG_LEVEL. Where the log goes is fixed.
    """
    asked = await read_json(request, parts.limits.max_json)
    change = parts.controls.logging.change
    return Json(await asyncio.to_thread(change, asked))


@router.get("/v2/trace/setting", responses=answers(TraceSettings, "The settings."))
async def trace_settings(parts: Served) -> Response:
    """Say which requests are traced."""
    return Json(parts.controls.tracing.settings())


@router.post(
    "/v2/trace/setting",
    responses=answers(TraceSettings, "The settings.", 400, 422, 503),
    openapi_extra=json_body(TraceSettings),
)
async def set_trace_settings(request: Request, parts: Served) -> Response:
    """Change which requests are traced, until the server starts again.

    With `trace_level` TIMESTAMPS one of every `trace_rate` inferences, and at most
    `trace_count` more, writes its times to `trace_file` in the server's folder of
    traces. Null takes a setting back to its default.
    """
    asked = await read_json(request, parts.limits.max_json)
    change = parts.controls.tracing.change
    return Json(await asyncio.to_thread(change, "", asked))


@router.get(_MODEL_TRACE, responses=answers(TraceSettings, "The settings.", 404, 503))
async def model_trace_settings(request: Request, parts: Served, name: Name) -> Response:
    """Say which requests for a model are traced."""
    await parts.call(request, "metadata", target(name))
    return Json(parts.controls.tracing.settings(name))


@router.post(
    _MODEL_TRACE,
    responses=answers(TraceSettings, "The settings.", 400, 404, 422, 503),
    openapi_extra=json_body(TraceSettings),
)
async def set_model_trace_settings(
    request: Request, parts: Served, name: Name
) -> Response:
    """Change which requests for a model are traced; null: as for all others."""
    asked = await read_json(request, parts.limits.max_json)
    await parts.call(request, "metadata", target(name))
    change = parts.controls.tracing.change
    return Json(await asyncio.to_thread(change, name, asked))
