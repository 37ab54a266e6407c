"""/v2/logging and /v2/trace: what the protocol lets clients change, fixed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from nnz_service.gateway.oip_settings import (
    LOG_INSTEAD,
    TRACE,
    TRACE_INSTEAD,
    must_equal,
)
from nnz_service.gateway.oip_settings import log_settings as held_log_settings
from nnz_service.gateway.servables import target
from nnz_service.web.answers import Json
from nnz_service.web.bodies import read_json
from nnz_service.web.deps import Parts, Served
from nnz_service.web.names import Name
from nnz_service.web.openapi import answers, json_body
from nnz_service.web.schemas.oip import LogSettings, TraceSettings

router = APIRouter(tags=["server"])


@router.get("/v2/logging", responses=answers(LogSettings, "The settings."))
async def log_settings() -> Response:
    """Say what is logged."""
    return Json(held_log_settings())


@router.post(
    "/v2/logging",
    responses=answers(LogSettings, "The settings.", 400, 422),
    openapi_extra=json_body(LogSettings),
)
async def set_log_settings(request: Request, parts: Served) -> Response:
    """Accept the settings that hold already; others need a restart (NNZ_LOG_LEVEL)."""
    await _must_equal(request, parts, held_log_settings(), LOG_INSTEAD)
    return Json(held_log_settings())


@router.get("/v2/trace/setting", responses=answers(TraceSettings, "The settings."))
async def trace_settings() -> Response:
    """Say that tracing is off."""
    return Json(TRACE)


@router.post(
    "/v2/trace/setting",
    responses=answers(TraceSettings, "The settings.", 400, 422),
    openapi_extra=json_body(TraceSettings),
)
async def set_trace_settings(request: Request, parts: Served) -> Response:
    """Accept the settings that hold already; tracing cannot be turned on."""
    await _must_equal(request, parts, TRACE, TRACE_INSTEAD)
    return Json(TRACE)


@router.get(
    "/v2/models/{name}/trace/setting",
    responses=answers(TraceSettings, "The settings.", 404, 503),
)
async def model_trace_settings(request: Request, parts: Served, name: Name) -> Response:
    """Say that tracing is off for this model too."""
    await parts.call(request, "metadata", target(name))
    return Json(TRACE)


@router.post(
    "/v2/models/{name}/trace/setting",
    responses=answers(TraceSettings, "The settings.", 400, 404, 422, 503),
    openapi_extra=json_body(TraceSettings),
)
async def set_model_trace_settings(
    request: Request, parts: Served, name: Name
) -> Response:
    """Accept the settings that hold already; tracing cannot be turned on."""
    await _must_equal(request, parts, TRACE, TRACE_INSTEAD)
    await parts.call(request, "metadata", target(name))
    return Json(TRACE)


async def _must_equal(
    request: Request, parts: Parts, held: Mapping[str, Any], instead: str
) -> None:
    """Refuse a change; null clears a setting, which changes nothing here."""
    must_equal(await read_json(request, parts.limits.max_json), held, instead)
