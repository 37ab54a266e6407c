"""Inputs of a body that lie in shared memory, as part of its time and its bytes."""

from __future__ import annotations

import dataclasses
from typing import Any

from numpy.typing import NDArray
from starlette.requests import Request

from nnz_service.gateway import lent
from nnz_service.gateway.regions import Place, Regions
from nnz_service.web.codecs import Body, TensorRequest
from nnz_service.web.deps import Parts, caller_of
from nnz_service.web.stages import stages_of


async def fetch(
    request: Request, parts: Parts, body: Body, asked: TensorRequest
) -> TensorRequest:
    """Read the inputs that lie in shared memory; they count as part of the body.

    Raises:
        ServiceError: A place cannot be used; see `gateway.lent`.
    """
    places = asked.places
    if not places:
        return asked
    regions, limit = parts.controls.regions, parts.limits.max_body
    size = lent.check_places(
        caller_of(request), regions, places, asked.lent, len(body.data), limit
    )
    stages = stages_of(request)
    if stages.reservation is not None:
        stages.reservation.grow(size)
    with stages.measure("receive"):
        read = await lent.read_inputs(regions, asked.lent)
    return dataclasses.replace(asked, tensors=asked.tensors | read, lent={})


async def deliver(
    regions: Regions, place: Place, flat: NDArray[Any], name: str
) -> dict[str, Any]:
    """Write an output to its place; returns the parameters of its JSON.

    Raises:
        ServiceError: The place cannot be used; see `gateway.lent`.
    """
    told = await lent.deliver(regions, place, flat, name)
    # Nothing of it follows the JSON; the C++ client insists on the member.
    return {**told, "binary_data_size": 0}
