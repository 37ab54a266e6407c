"""What is stored; load and unload it."""

from __future__ import annotations

from nnz_service.errors import ImpossibleError
from nnz_service.gateway import residence
from nnz_service.grpc.call import Call
from nnz_service.grpc.protocol import messages as m


async def index(
    call: Call, request: m.RepositoryIndexRequest
) -> m.RepositoryIndexResponse:
    """List every stored servable with its state, or the ready ones."""
    _only_one(request.repository_name)
    found = sorted((await residence.states(call.parts)).items())
    rows = (
        m.RepositoryIndexResponse.ModelIndex(
            name=name, version=version, state=state, reason=reason
        )
        for (name, version), (state, reason) in found
        if state == "READY" or not request.ready
    )
    return m.RepositoryIndexResponse(models=rows)


async def load(
    call: Call, request: m.RepositoryModelLoadRequest
) -> m.RepositoryModelLoadResponse:
    """Make a stored model (its newest version) or a matrix resident.

    Raises:
        ImpossibleError: Files or configurations came with the request.
    """
    _only_one(request.repository_name)
    if request.parameters:
        raise ImpossibleError(
            f"load takes no parameters, got "
            f"{', '.join(sorted(request.parameters))[:200]}; send a new model file "
            f"over HTTP, with PUT /v1/models/{request.model_name[:128]}"
        )
    async with call.parts.turns.of(request.model_name):
        await residence.load(call.parts, request.model_name)
    return m.RepositoryModelLoadResponse()


async def unload(
    call: Call, request: m.RepositoryModelUnloadRequest
) -> m.RepositoryModelUnloadResponse:
    """Let go of every version of a model, or of a matrix; the files stay."""
    _only_one(request.repository_name)
    async with call.parts.turns.of(request.model_name):
        await residence.unload(call.parts, request.model_name)
    return m.RepositoryModelUnloadResponse()


def _only_one(repository: str) -> None:
    if repository:
        raise ImpossibleError(
            f"there is no repository {repository[:80]!r}: this server has one, which "
            "needs no name"
        )
