"""Names of servables in a call, and what the protocol says about one."""

from __future__ import annotations

import re
from typing import Any

from nnz_service.errors import NotFoundError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_VERSION = re.compile(r"[0-9]{1,18}")


def target(name: str, version: str | None = None) -> dict[str, Any]:
    """Return the parameters that name a servable to the worker.

    Raises:
        NotFoundError: No servable can have this name or version.
    """
    if not _NAME.fullmatch(name):
        raise NotFoundError(f"there is no model or matrix {name[:128]!r}")
    if version is None:
        return {"name": name}
    if not _VERSION.fullmatch(version):
        raise NotFoundError(
            f"there is no version {version[:40]!r} of {name!r}; versions are numbers"
        )
    return {"name": name, "version": version}


def oip_metadata(info: dict[str, Any]) -> dict[str, Any]:
    """Turn the worker's metadata into the protocol's."""
    return {
        "name": info["name"],
        "versions": info["versions"],
        "platform": f"nnz_{info['kind']}",
        "inputs": info["inputs"],
        "outputs": info["outputs"],
    }


def oip_config(info: dict[str, Any]) -> dict[str, Any]:
    """Turn the worker's metadata into a model configuration.

    Only what is true is in it: clients take the presence of a member, such as
    ``dynamic_batching``, for the feature.
    """
    batch = int(info["max_batch_size"])

    def tensor(row: dict[str, Any]) -> dict[str, Any]:
        dims = row["shape"][1:] if batch else row["shape"]
        return {
            "name": row["name"],
            "data_type": f"TYPE_{row['datatype']}",
            "dims": dims,
        }

    return {
        "name": info["name"],
        "platform": f"nnz_{info['kind']}",
        "backend": "nnz",
        "max_batch_size": batch,
        "input": [tensor(row) for row in info["inputs"]],
        "output": [tensor(row) for row in info["outputs"]],
    }
