"""Tensors in memory that a client lends: inputs out of it, outputs into it."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from nnz_service.errors import ImpossibleError, TooLargeError
from nnz_service.gateway.regions import Place, Regions
from nnz_service.gateway.tensors import view_bytes
from nnz_service.web.codecs import Body, LentInput, TensorRequest
from nnz_service.web.deps import Parts
from nnz_service.web.stages import stages_of

#: Copying more than this happens outside the event loop.
_ON_THE_LOOP = 1 << 16


async def fetch(
    request: Request, parts: Parts, body: Body, asked: TensorRequest
) -> TensorRequest:
    """Read the inputs that lie in shared memory; they count as part of the body.

    Raises:
        ImpossibleError: This server takes no shared memory, or a place is not inside
            its region.
        TooLargeError: With the body they are longer than a body may be.
        ServiceError: A region is not there, or not what it was; see `Regions`.
    """
    places = asked.places
    if not places:
        return asked
    regions = parts.controls.regions
    if not regions.enabled:
        raise ImpossibleError(
            "the request names a shared memory region; this server takes none "
            "(NNZ_SHARED_MEMORY), send the bytes"
        )
    for place in places:
        regions.check(place)
    size = len(body.data) + sum(one.place.nbytes for one in asked.lent.values())
    if size > parts.limits.max_body:
        raise TooLargeError(
            f"the body and its inputs in shared memory have {size} bytes, the limit "
            f"is {parts.limits.max_body} (NNZ_MAX_BODY)"
        )
    stages = stages_of(request)
    if stages.reservation is not None:
        stages.reservation.true_up(size)
    with stages.measure("receive"):
        if size > _ON_THE_LOOP:
            read = await asyncio.to_thread(_read, regions, asked.lent)
        else:
            read = _read(regions, asked.lent)
    return dataclasses.replace(asked, tensors=asked.tensors | read, lent={})


async def deliver(
    regions: Regions, place: Place, flat: NDArray[Any], name: str
) -> dict[str, Any]:
    """Write an output to its place; returns the parameters that tell of it.

    Raises:
        ImpossibleError: The place is too short for it.
        ServiceError: The region is not there, or not what it was; see `Regions`.
    """
    if flat.nbytes > place.nbytes:
        raise ImpossibleError(
            f"output '{name}' has {flat.nbytes} bytes, but shared_memory_byte_size "
            f"is {place.nbytes}"
        )
    data = flat.view(np.uint8)
    if flat.nbytes > _ON_THE_LOOP:
        await asyncio.to_thread(regions.write, place, data)
    else:
        regions.write(place, data)
    return {
        "shared_memory_region": place.region,
        "shared_memory_offset": place.offset,
        "shared_memory_byte_size": flat.nbytes,
        # Nothing of it follows the JSON; the C++ client insists on the member.
        "binary_data_size": 0,
    }


def _read(regions: Regions, lent: dict[str, LentInput]) -> dict[str, NDArray[Any]]:
    return {
        name: view_bytes(
            regions.read(one.place).data, one.dtype, one.shape, f"input '{name}'"
        )
        for name, one in lent.items()
    }
