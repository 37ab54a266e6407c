"""What the server says of itself in the Open Inference Protocol."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

#: Extensions of the protocol that every front door has, and no others.
EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)


def server_metadata() -> dict[str, Any]:
    """Name the server, its version and the protocol extensions that it has."""
    return {
        "name": "nnz",
        "version": version("nnz-server"),
        "extensions": list(EXTENSIONS),
    }
