"""Shared memory: no regions are offered over gRPC, and the calls about them say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnz_service.errors import ImpossibleError, NotOfferedError
from nnz_service.grpc.call import Call
from nnz_service.grpc.protocol import messages as m


async def system_status(
    _: Call, __: m.SystemSharedMemoryStatusRequest
) -> m.SystemSharedMemoryStatusResponse:
    """List the regions of the system's shared memory: none."""
    return m.SystemSharedMemoryStatusResponse()


async def cuda_status(
    _: Call, __: m.CudaSharedMemoryStatusRequest
) -> m.CudaSharedMemoryStatusResponse:
    """List the regions of a GPU's memory: none."""
    return m.CudaSharedMemoryStatusResponse()


async def system_unregister(
    _: Call, __: m.SystemSharedMemoryUnregisterRequest
) -> m.SystemSharedMemoryUnregisterResponse:
    """Let go of regions, of which there are none; clients do so before they begin."""
    return m.SystemSharedMemoryUnregisterResponse()


async def cuda_unregister(
    _: Call, __: m.CudaSharedMemoryUnregisterRequest
) -> m.CudaSharedMemoryUnregisterResponse:
    """Let go of regions, of which there are none; clients do so before they begin."""
    return m.CudaSharedMemoryUnregisterResponse()


async def system_register(
    _: Call, __: m.SystemSharedMemoryRegisterRequest
) -> m.SystemSharedMemoryRegisterResponse:
    """Refuse a region.

    Raises:
        NotOfferedError: Always.
    """
    raise NotOfferedError(
        "no shared memory regions are offered over gRPC; send tensors in "
        "raw_input_contents"
    )


async def cuda_register(
    _: Call, __: m.CudaSharedMemoryRegisterRequest
) -> m.CudaSharedMemoryRegisterResponse:
    """Refuse a region.

    Raises:
        NotOfferedError: Always.
    """
    raise NotOfferedError(
        "no regions of GPU memory are offered over gRPC; send tensors in "
        "raw_input_contents"
    )


def refuse_regions(parameters: Mapping[str, Any], where: str) -> None:
    """Refuse a tensor that lies in a region.

    Raises:
        ImpossibleError: Its parameters name one.
    """
    if "shared_memory_region" in parameters:
        raise ImpossibleError(
            f"{where} names a shared memory region; none are offered over gRPC, send "
            "the bytes"
        )
