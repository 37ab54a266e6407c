"""What the server says of itself in the Open Inference Protocol."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

#: Extensions of the protocol that the server always has.
EXTENSIONS = (
    "binary_tensor_data",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
    "trace",
)
#: One that it has where clients may lend memory.
_LENDING = "system_shared_memory"

_VERSION = version("nnz-server")


def server_metadata(*, lending: bool) -> dict[str, Any]:
    """Name the server, its version and the protocol extensions that it has.

    Args:
        lending: Whether clients may lend memory.
    """
    more = (_LENDING,) if lending else ()
    return {
        "name": "nnz",
        "version": _VERSION,
        "extensions": sorted((*EXTENSIONS, *more)),
    }
