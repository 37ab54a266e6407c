"""What the server says of itself in the Open Inference Protocol."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

#: Extensions of the protocol that every front door has, and no others.
EXTENSIONS = (
    "binary_tensor_data",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
    "trace",
)


_VERSION = version("nnz-server")


def server_metadata(*more: str) -> dict[str, Any]:
    """Name the server, its version and the protocol extensions that it has.

    Args:
        more: Extensions that settings have switched on.
    """
    return {
        "name": "nnz",
        "version": _VERSION,
        "extensions": sorted((*EXTENSIONS, *more)),
    }
