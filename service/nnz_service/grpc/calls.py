"""Every call that takes one message and is not inference, by its published name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from nnz_service.grpc import health, models, oip_settings, regions, repository
from nnz_service.grpc.call import Call
from nnz_service.grpc.protocol import messages as m

#: Takes the call and its message, whose type is the one that the protocol names.
Handler = Callable[[Call, Any], Awaitable[Message]]

CALLS: Mapping[str, Handler] = {
    "ServerLive": health.server_live,
    "ServerReady": health.server_ready,
    "ServerMetadata": health.server_metadata,
    "ModelReady": health.model_ready,
    "ModelMetadata": models.model_metadata,
    "ModelConfig": models.model_config,
    "ModelStatistics": models.model_statistics,
    "RepositoryIndex": repository.index,
    "RepositoryModelLoad": repository.load,
    "RepositoryModelUnload": repository.unload,
    "TraceSetting": oip_settings.trace_setting,
    "LogSettings": oip_settings.log_setting,
    "SystemSharedMemoryStatus": regions.status,
    "SystemSharedMemoryRegister": regions.register,
    "SystemSharedMemoryUnregister": regions.unregister,
    "CudaSharedMemoryStatus": regions.none_on_a_gpu(m.CudaSharedMemoryStatusResponse),
    "CudaSharedMemoryRegister": regions.cuda_register,
    "CudaSharedMemoryUnregister": regions.none_on_a_gpu(
        m.CudaSharedMemoryUnregisterResponse
    ),
}
#: Probes carry no secrets, and what they answer is none.
OPEN = frozenset({"ServerLive", "ServerReady"})
#: What changes the server for everybody takes an admin's key.
ADMINISTRATIVE = frozenset(
    name
    for name in CALLS
    if name.startswith(("Repository", "SystemShared", "CudaShared"))
    or name in {"TraceSetting", "LogSettings"}
)
#: What they do is written down.
_CHANGES = frozenset(
    {
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
    }
)
#: Work that has bounds of its own: the file is as large as it is.
UNBOUNDED = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})


def changes(name: str, message: Any) -> bool:
    """Say whether a call asks for a change; without settings it asks what they are."""
    return name in _CHANGES or bool(getattr(message, "settings", ()))


def resource_of(message: Any) -> str:
    """Return the name of the servable or the region that a message is about."""
    found = getattr(message, "model_name", "") or getattr(message, "name", "")
    return str(found)
