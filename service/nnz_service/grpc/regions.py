"""Shared memory: regions that clients register, the same as over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from google.protobuf.message import Message

from nnz_service.gateway.regions import refuse_cuda
from nnz_service.grpc.call import Call
from nnz_service.grpc.protocol import messages as m


async def status(
    call: Call, request: m.SystemSharedMemoryStatusRequest
) -> m.SystemSharedMemoryStatusResponse:
    """List the regions that clients have registered, or the one that is named."""
    found = call.parts.controls.regions.status(request.name or None)
    row = m.SystemSharedMemoryStatusResponse.RegionStatus
    return m.SystemSharedMemoryStatusResponse(
        regions={region.name: row(**region.to_json()) for region in found}
    )


async def register(
    call: Call, request: m.SystemSharedMemoryRegisterRequest
) -> m.SystemSharedMemoryRegisterResponse:
    """Take a part of a shared memory object of this machine as a region."""
    asked = request.name, request.key, request.offset, request.byte_size
    await asyncio.to_thread(call.parts.controls.regions.register, *asked)
    return m.SystemSharedMemoryRegisterResponse()


async def unregister(
    call: Call, request: m.SystemSharedMemoryUnregisterRequest
) -> m.SystemSharedMemoryUnregisterResponse:
    """Forget the region that is named, or all; the memory stays the client's."""
    name = request.name or None
    await asyncio.to_thread(call.parts.controls.regions.unregister, name)
    return m.SystemSharedMemoryUnregisterResponse()


async def cuda_register(_: Call, __: m.CudaSharedMemoryRegisterRequest) -> Message:
    """Refuse memory on a GPU.

    Raises:
        NotOfferedError: Always.
    """
    refuse_cuda()


def none_on_a_gpu(kind: type[Message]) -> Callable[[Call, Message], Awaitable[Message]]:
    """Return a call about regions on a GPU: there are none to list or to forget.

    Clients that use only system shared memory forget these too before they begin.
    """

    async def answer(_: Call, __: Message) -> Message:
        return kind()

    return answer
