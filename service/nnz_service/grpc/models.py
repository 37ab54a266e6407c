"""What servables take and give, and what they did."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from nnz_service.gateway.ownership import seen
from nnz_service.gateway.servables import oip_config, oip_metadata
from nnz_service.grpc.call import Call
from nnz_service.grpc.protocol import messages as m

M = TypeVar("M", bound=Message)


async def model_metadata(
    call: Call, request: m.ModelMetadataRequest
) -> m.ModelMetadataResponse:
    """Describe the inputs and outputs of a servable."""
    params = await call.servable(request.name, request.version)
    reply = await call.ask("metadata", params)
    return _filled(m.ModelMetadataResponse(), oip_metadata(reply.result))


async def model_config(
    call: Call, request: m.ModelConfigRequest
) -> m.ModelConfigResponse:
    """Describe a servable as a Triton model configuration."""
    params = await call.servable(request.name, request.version)
    reply = await call.ask("metadata", params)
    return _filled(m.ModelConfigResponse(), {"config": oip_config(reply.result)})


async def model_statistics(
    call: Call, request: m.ModelStatisticsRequest
) -> m.ModelStatisticsResponse:
    """Count the requests, rows and runs of one servable or of all, and their times."""
    params: dict[str, Any] = {}
    if request.name:
        params = await call.servable(request.name, request.version)
    rows = (await call.ask("stats", params)).result["model_stats"]
    names = {row["name"] for row in rows}
    visible = await seen(call.parts.repository, call.caller, names)
    rows = [row for row in rows if row["name"] in visible]
    return _filled(m.ModelStatisticsResponse(), {"model_stats": rows})


def _filled(message: M, fields: dict[str, object]) -> M:
    """Fill a message from the JSON form; what the protocol has no place for is left."""
    return ParseDict(fields, message, ignore_unknown_fields=True)
