"""Writing messages down beside the event loop, when they are big."""

from __future__ import annotations

import asyncio
from typing import Any

from nnz_service.dataplane import wire
from nnz_service.dataplane.messages import Tensors
from nnz_service.dataplane.slab import sealed_under

BIG = 1 << 20  # bytes of tensors whose copy would hold the event loop too long


def is_big(tensors: Tensors) -> bool:
    """Whether going through all of their bytes takes long."""
    return sum(tensor.nbytes for tensor in tensors.values()) >= BIG


async def pack_soon(
    fields: dict[str, Any], tensors: Tensors
) -> tuple[bytes, int | None]:
    """Do what `wire.pack` does, on another thread when there is much to copy.

    Raises:
        MalformedError: when something in it cannot cross.
    """
    if not is_big(tensors) or sealed_under(tensors) is not None:
        return wire.pack(fields, tensors)
    work = asyncio.ensure_future(asyncio.to_thread(wire.pack, fields, tensors))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(_discard)
        raise


def _discard(work: asyncio.Future[tuple[bytes, int | None]]) -> None:
    if not work.cancelled() and work.exception() is None:
        wire.discard(work.result()[1])
