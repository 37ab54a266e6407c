"""What is stored, what is resident, and moving from one to the other."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from nnz_service.errors import InvalidModelError, NotFoundError, UnavailableError
from nnz_service.gateway.parts import Parts
from nnz_service.gateway.servables import target
from nnz_service.repository import EVERYBODY, ModelRecord, Owner, is_matrix_id

#: The version of every matrix: its id is its content, so there is only one.
MATRIX_VERSION = "1"


async def load(parts: Parts, name: str, version: str | None = None) -> dict[str, Any]:
    """Make a stored model or matrix resident; returns the worker's metadata.

    The caller holds the turn of the name, as for the others here.

    Raises:
        NotFoundError: Nothing of that name is stored.
        ImpossibleError: The file cannot be served.
    """
    target(name, version)
    if is_matrix_id(name):
        matrix = await asyncio.to_thread(parts.repository.matrix, name)
        kind, version, path = "matrix", MATRIX_VERSION, matrix.path
        pinned = bool(matrix.pinned)
    else:
        model = await asyncio.to_thread(parts.repository.model, name, version)
        if model.reason is not None:
            raise InvalidModelError(f"{name} cannot be served: {model.reason}")
        kind, version, path = "model", model.version, model.path
        pinned = False
    params = {
        "kind": kind, "name": name, "version": version, "path": str(path),
        "pinned": pinned,
    }  # fmt: skip
    reply = await parts.dataplane.call("load", params)
    if kind == "model":
        await asyncio.to_thread(parts.repository.set_wanted, name, version, True)
    return reply.result


async def unload(parts: Parts, name: str, version: str | None = None) -> list[str]:
    """Let go of one version of a servable, or of all; returns which.

    Raises:
        NotFoundError: Nothing of that name is stored.
    """
    params = target(name, version)
    if is_matrix_id(name):
        await asyncio.to_thread(parts.repository.matrix, name)
        versions = [MATRIX_VERSION]
    else:
        stored = await asyncio.to_thread(parts.repository.models)
        versions = [
            record.version
            for record in stored
            if record.name == name and version in (None, record.version)
        ]
        if not versions:
            raise NotFoundError(f"there is no model {name!r} {version or ''}".rstrip())
        for found in versions:
            await asyncio.to_thread(parts.repository.set_wanted, name, found, False)
    with contextlib.suppress(NotFoundError):
        await parts.dataplane.call("unload", params)
    return versions


async def forget(
    parts: Parts, name: str, version: str | None = None, owner: Owner = EVERYBODY
) -> None:
    """Remove one version of a servable, or all, from the disk and the worker.

    A matrix stays for its other owners.

    Raises:
        NotFoundError: Nothing of that name is stored.
        ForbiddenError: The matrix belongs to nobody in particular.
    """
    if is_matrix_id(name):
        delete = parts.repository.delete_matrix
        if not await asyncio.to_thread(delete, name, owner):
            return
    else:
        await asyncio.to_thread(parts.repository.delete_model, name, version)
    # In this order, for nothing can be loaded again once its file is gone. A worker
    # that is not there holds nothing.
    with contextlib.suppress(NotFoundError, UnavailableError):
        await parts.dataplane.call("unload", target(name, version))


async def states(parts: Parts) -> dict[tuple[str, str], tuple[str, str]]:
    """Map (name, version) to (state, reason) for all that is stored or resident."""
    try:
        rows = (await parts.dataplane.call("index", {})).result["models"]
    except UnavailableError as exc:
        rows, missing, lazily = [], str(exc), str(exc)
    else:
        missing, lazily = "waiting to be loaded", "it is loaded at its next use"
    found = {
        (row["name"], row["version"]): (row["state"], row["reason"] or "")
        for row in rows
    }
    for record in await asyncio.to_thread(parts.repository.models):
        found.setdefault((record.name, record.version), _absent(record, missing))
    for matrix in await asyncio.to_thread(parts.repository.matrices):
        found.setdefault((matrix.id, MATRIX_VERSION), ("UNAVAILABLE", lazily))
    return found


def _absent(record: ModelRecord, missing: str) -> tuple[str, str]:
    if record.reason is not None:
        return "UNAVAILABLE", record.reason
    return "UNAVAILABLE", missing if record.wanted else "unloaded"
