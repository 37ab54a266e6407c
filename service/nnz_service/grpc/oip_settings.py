"""What the protocol lets clients change about logs and traces."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from nnz_service.grpc.call import Call
from nnz_service.grpc.protocol import messages as m


async def trace_setting(
    call: Call, request: m.TraceSettingRequest
) -> m.TraceSettingResponse:
    """Say which requests are traced, or change it, for one model or for all."""
    model, tracing = request.model_name, call.parts.controls.tracing
    if model:
        await call.ask("metadata", await call.servable(model))
    if request.settings:
        asked = {k: _listed(k, list(v.value)) for k, v in request.settings.items()}
        held = await asyncio.to_thread(tracing.change, model, asked)
    else:
        held = tracing.settings(model)
    # Here every setting is a list, and an empty one clears it.
    value = m.TraceSettingResponse.SettingValue
    rows = {k: v if isinstance(v, list) else [v] for k, v in held.items()}
    return m.TraceSettingResponse(settings={k: value(value=v) for k, v in rows.items()})


async def log_setting(
    call: Call, request: m.LogSettingsRequest
) -> m.LogSettingsResponse:
    """Say what is logged, or change it."""
    logging = call.parts.controls.logging
    held: Mapping[str, Any] = logging.settings()
    if request.settings:
        asked = {name: _chosen(value) for name, value in request.settings.items()}
        held = await asyncio.to_thread(logging.change, asked)
    return m.LogSettingsResponse(settings={k: _logged(v) for k, v in held.items()})


def _listed(name: str, values: list[str]) -> Any:
    if not values:
        return None
    return values if name == "trace_level" else values[0]


def _chosen(value: m.LogSettingsRequest.SettingValue) -> bool | int | str | None:
    """Return the one member that is set; none clears the setting."""
    which = value.WhichOneof("parameter_choice")
    return None if which is None else getattr(value, which)


def _logged(value: bool | int | str) -> m.LogSettingsResponse.SettingValue:
    found = m.LogSettingsResponse.SettingValue()
    if isinstance(value, bool):
        found.bool_param = value
    elif isinstance(value, int):
        found.uint32_param = value
    else:
        found.string_param = value
    return found
