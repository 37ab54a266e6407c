"""Is the server there, can it compute, what is it."""

from __future__ import annotations

from nnz_service.errors import NotFoundError, UnavailableError
from nnz_service.gateway import about
from nnz_service.grpc.call import Call
from nnz_service.grpc.protocol import messages as m


async def server_live(_: Call, __: m.ServerLiveRequest) -> m.ServerLiveResponse:
    """Say that the process answers; nothing else is asked of it."""
    return m.ServerLiveResponse(live=True)


async def server_ready(call: Call, _: m.ServerReadyRequest) -> m.ServerReadyResponse:
    """Say whether the worker is up and has loaded what it should hold."""
    ready = call.parts.dataplane.ready and not call.parts.drain.begun
    return m.ServerReadyResponse(ready=ready)


async def server_metadata(
    call: Call, _: m.ServerMetadataRequest
) -> m.ServerMetadataResponse:
    """Name the server, its version and the protocol extensions that it has."""
    lending = call.parts.controls.regions.enabled
    return m.ServerMetadataResponse(**about.server_metadata(lending=lending))


async def model_ready(call: Call, request: m.ModelReadyRequest) -> m.ModelReadyResponse:
    """Say whether a servable is resident; one that does not exist is not."""
    try:
        params = await call.servable(request.name, request.version)
        await call.ask("metadata", params)
    except (NotFoundError, UnavailableError):
        return m.ModelReadyResponse(ready=False)
    return m.ModelReadyResponse(ready=True)
