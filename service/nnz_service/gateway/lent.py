"""Tensors in memory that a client lends: inputs out of it, outputs into it.

What every front door does with the parameters `shared_memory_region`,
`shared_memory_offset` and `shared_memory_byte_size` of a tensor.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_service.errors import ImpossibleError, MalformedError, TooLargeError
from nnz_service.gateway.parameters import is_int
from nnz_service.gateway.regions import Place, Regions
from nnz_service.gateway.tensors import MAX_BYTES, view_bytes
from nnz_service.keys import Caller, Scope, authorise
from nnz_service.servable import datatype

#: Copying more than this happens outside the event loop.
_ON_THE_LOOP = 1 << 16
_ADMIN = frozenset({Scope.ADMIN})


@dataclass(frozen=True, slots=True)
class LentInput:
    """An input that lies in shared memory, of exactly that many bytes."""

    dtype: np.dtype[Any]
    shape: list[int]
    place: Place


def place_of(parameters: Mapping[str, Any], where: str) -> Place | None:
    """Return the place in shared memory that parameters name, if they do.

    Raises:
        MalformedError: Its name or a number of it is none.
    """
    region = parameters.get("shared_memory_region")
    if region is None:
        return None
    if not isinstance(region, str):
        raise MalformedError(f"{where}: shared_memory_region must be a name")
    numbers: list[int] = []
    for name, default in (("offset", 0), ("byte_size", None)):
        number: object = parameters.get(f"shared_memory_{name}", default)
        if not is_int(number) or not 0 <= number <= MAX_BYTES:
            raise MalformedError(
                f"{where} has shared_memory_{name} {str(number)[:40]}; it must be a "
                "number of bytes, for shared_memory_region is given"
            )
        numbers.append(number)
    return Place(region, *numbers)


def lent_input(
    place: Place, dtype: np.dtype[Any], shape: list[int], where: str
) -> LentInput:
    """Describe an input that lies in a place.

    Raises:
        MalformedError: The place has not the length that the shape needs.
    """
    expected = math.prod(shape) * dtype.itemsize
    if place.nbytes != expected:
        raise MalformedError(
            f"{where} says shared_memory_byte_size {place.nbytes}; shape {shape} "
            f"of {datatype(dtype)} needs {expected}"
        )
    return LentInput(dtype, shape, place)


def check_places(
    caller: Caller,
    regions: Regions,
    places: Iterable[Place],
    lent: Mapping[str, LentInput],
    sent: int,
    limit: int,
) -> int:
    """Check every place of a request before anything is read or computed.

    Regions are common to all who may register one: the name is all that tells them
    apart, and who knows it reads and writes the memory of whoever lent it.

    Args:
        caller: Who names them.
        regions: Where they are.
        places: Of inputs and outputs.
        lent: The inputs; they count as part of what was sent.
        sent: Bytes of the request itself.
        limit: What it may have.

    Returns:
        Its bytes with the inputs that are lent.

    Raises:
        ImpossibleError: This server takes no shared memory, or a place is not inside
            its region.
        ForbiddenError: The caller is no admin.
        TooLargeError: It is longer than a request may be.
        NotFoundError: A region is not there.
    """
    if not regions.enabled:
        raise ImpossibleError(
            "the request names a shared memory region; this server takes none "
            "(NNZ_SHARED_MEMORY), send the bytes"
        )
    authorise(caller, _ADMIN, "that with shared memory")
    for place in places:
        regions.check(place)
    size = sent + sum(one.place.nbytes for one in lent.values())
    if size > limit:
        raise TooLargeError(
            f"the request and its inputs in shared memory have {size} bytes, the limit "
            f"is {limit} (NNZ_MAX_BODY)"
        )
    return size


async def read_inputs(
    regions: Regions, lent: Mapping[str, LentInput]
) -> dict[str, NDArray[Any]]:
    """Copy inputs out of shared memory.

    Raises:
        MalformedError: A BOOL is neither 0 nor 1.
        ServiceError: A region is not there, or not what it was; see `Regions`.
    """
    if sum(one.place.nbytes for one in lent.values()) > _ON_THE_LOOP:
        return await asyncio.to_thread(_read, regions, lent)
    return _read(regions, lent)


async def deliver(
    regions: Regions, place: Place, flat: NDArray[Any], name: str
) -> dict[str, Any]:
    """Write an output to its place; returns the parameters that tell of it.

    Args:
        regions: Where the place is.
        place: At least as long as the output.
        flat: The output, of one axis and contiguous.
        name: Its name.

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
    }


def _read(regions: Regions, lent: Mapping[str, LentInput]) -> dict[str, NDArray[Any]]:
    return {
        name: view_bytes(
            regions.read(one.place).data, one.dtype, one.shape, f"input '{name}'"
        )
        for name, one in lent.items()
    }
