"""Which matrices a caller may use: their own, and those of nobody in particular."""

from __future__ import annotations

import asyncio

from nnz_service.keys import Caller, Scope
from nnz_service.repository import Owner, Repository, is_matrix_id


def owner_of(caller: Caller) -> Owner:
    """For whom the catalog is asked on behalf of a caller."""
    return Owner(caller.id, caller.admin, caller.quota.stored)


async def check_servable(repository: Repository, caller: Caller, name: str) -> None:
    """Let a caller use a servable: any model, and the matrices that they see.

    Raises:
        NotFoundError: The matrix is not there, or not theirs, which sounds alike.
    """
    if caller.admin or not is_matrix_id(name):
        return
    owner = owner_of(caller)
    if not repository.saw(name, owner):
        await asyncio.to_thread(repository.matrix, name, owner)


def scopes_of(name: str) -> frozenset[Scope]:
    """Scopes of which one is needed to use a servable of this name."""
    return frozenset({Scope.ALGEBRA if is_matrix_id(name) else Scope.INFER})


async def seen(repository: Repository, caller: Caller, names: set[str]) -> set[str]:
    """Return those of some servables that a caller may know of."""
    if caller.admin:
        return names
    found = await asyncio.to_thread(repository.matrices, owner_of(caller))
    ids = {matrix.id for matrix in found}
    return {name for name in names if name in ids or not is_matrix_id(name)}
