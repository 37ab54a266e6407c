"""Names in a path, as the interface's description has them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request

_REGION = "As the client names the region."


def described(name: str, meaning: str) -> dict[str, Any]:
    """Describe a part of a path that `named` gives to the route."""
    schema = {"type": "string"}
    return {
        "in": "path",
        "name": name,
        "required": True,
        "description": meaning,
        "schema": schema,
    }


async def _version(request: Request) -> str | None:
    return request.path_params.get("version")


async def _region(request: Request) -> str | None:
    return request.path_params.get("name")


Name = Annotated[str, Path(description="A model's name or a matrix id.")]
#: Of functions that answer two paths, of which one has no version. FastAPI by itself
#: would look for it in the query of the other.
Version = Annotated[str | None, Depends(_version)]
VERSION = described("version", "Digits.")
#: The same for regions of shared memory.
Region = Annotated[str | None, Depends(_region)]
RegionName = Annotated[str, Path(description=_REGION)]
REGION = described("name", _REGION)
