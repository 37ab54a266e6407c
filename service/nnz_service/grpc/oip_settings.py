"""What the protocol lets clients change about logs and traces, fixed here."""

from __future__ import annotations

from nnz_service.gateway.oip_settings import (
    LOG_INSTEAD,
    TRACE,
    TRACE_INSTEAD,
    log_settings,
    must_equal,
)
from nnz_service.gateway.servables import target
from nnz_service.grpc.call import Call
from nnz_service.grpc.protocol import messages as m


async def trace_setting(
    call: Call, request: m.TraceSettingRequest
) -> m.TraceSettingResponse:
    """Say that tracing is off; accept the settings that hold already."""
    # Here every setting is a list, and an empty one clears it.
    held = {k: v if isinstance(v, list) else [v] for k, v in TRACE.items()}
    asked = {k: list(v.value) or None for k, v in request.settings.items()}
    must_equal(asked, held, TRACE_INSTEAD)
    if request.model_name:
        await call.ask("metadata", target(request.model_name))
    value = m.TraceSettingResponse.SettingValue
    return m.TraceSettingResponse(settings={k: value(value=v) for k, v in held.items()})


async def log_setting(_: Call, request: m.LogSettingsRequest) -> m.LogSettingsResponse:
    """Say what is logged; accept the settings that hold already."""
    asked = {name: _chosen(value) for name, value in request.settings.items()}
    held = log_settings()
    must_equal(asked, held, LOG_INSTEAD)
    return m.LogSettingsResponse(settings={k: _logged(v) for k, v in held.items()})


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
