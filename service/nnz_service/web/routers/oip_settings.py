"""/v2/logging and /v2/trace: what the protocol lets clients change, fixed here."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter, Request, Response

from nnz_service import logs
from nnz_service.errors import ImpossibleError
from nnz_service.gateway.servables import target
from nnz_service.web.answers import Json
from nnz_service.web.bodies import read_json
from nnz_service.web.deps import Parts, Served
from nnz_service.web.names import Name
from nnz_service.web.openapi import answers, json_body
from nnz_service.web.schemas.oip import LogSettings, TraceSettings

router = APIRouter(tags=["server"])

_TRACE: dict[str, Any] = {
    "trace_file": "",
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_mode": "triton",
}


@router.get("/v2/logging", responses=answers(LogSettings, "The settings."))
async def log_settings() -> Response:
    """Say what is logged."""
    return Json(_logging())


@router.post(
    "/v2/logging",
    responses=answers(LogSettings, "The settings.", 400, 422),
    openapi_extra=json_body(LogSettings),
)
async def set_log_settings(request: Request, parts: Served) -> Response:
    """Accept the settings that hold already; others need a restart (NNZ_LOG_LEVEL)."""
    await _must_equal(request, parts, _logging(), "set NNZ_LOG_LEVEL and restart")
    return Json(_logging())


@router.get("/v2/trace/setting", responses=answers(TraceSettings, "The settings."))
async def trace_settings() -> Response:
    """Say that tracing is off."""
    return Json(_TRACE)


@router.post(
    "/v2/trace/setting",
    responses=answers(TraceSettings, "The settings.", 400, 422),
    openapi_extra=json_body(TraceSettings),
)
async def set_trace_settings(request: Request, parts: Served) -> Response:
    """Accept the settings that hold already; tracing cannot be turned on."""
    await _must_equal(request, parts, _TRACE, "read the Server-Timing header instead")
    return Json(_TRACE)


@router.get(
    "/v2/models/{name}/trace/setting",
    responses=answers(TraceSettings, "The settings.", 404, 503),
)
async def model_trace_settings(request: Request, parts: Served, name: Name) -> Response:
    """Say that tracing is off for this model too."""
    await parts.call(request, "metadata", target(name))
    return Json(_TRACE)


@router.post(
    "/v2/models/{name}/trace/setting",
    responses=answers(TraceSettings, "The settings.", 400, 404, 422, 503),
    openapi_extra=json_body(TraceSettings),
)
async def set_model_trace_settings(
    request: Request, parts: Served, name: Name
) -> Response:
    """Accept the settings that hold already; tracing cannot be turned on."""
    await _must_equal(request, parts, _TRACE, "read the Server-Timing header instead")
    await parts.call(request, "metadata", target(name))
    return Json(_TRACE)


def _logging() -> dict[str, Any]:
    level = logs.logger().get_effective_level()
    return {
        "log_file": "",
        "log_info": level <= logging.INFO,
        "log_warning": level <= logging.WARNING,
        "log_error": level <= logging.ERROR,
        "log_verbose_level": 0 if level > logging.DEBUG else 1,
        "log_format": "default",
    }


async def _must_equal(
    request: Request, parts: Parts, held: dict[str, Any], instead: str
) -> None:
    """Refuse a change; null clears a setting, which changes nothing here."""
    asked = await read_json(request, parts.limits.max_json)
    for name, value in asked.items():
        if name not in held:
            raise ImpossibleError(
                f"there is no setting {name[:80]!r}; there are {', '.join(held)}"
            )
        if value is not None and value != held[name]:
            raise ImpossibleError(
                f"{name} is {held[name]!r} and cannot be changed here; {instead}"
            )
