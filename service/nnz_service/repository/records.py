"""What the catalog says about stored models and matrices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnz_service.errors import ImpossibleError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MATRIX_ID = re.compile(r"m-[0-9a-f]{16}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Blob:
    """A file under its SHA-256."""

    sha256: str
    path: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One version of a model.

    Args:
        inputs: Rows `{name, datatype, shape}`, -1 for a free axis; outputs likewise.
        source: `put` (uploaded) or `directory` (found in the folder of models).
        wanted: Whether a worker should hold it.
        reason: Why the file cannot be served; None when intake found no fault.
        created: Seconds since 1970.
    """

    name: str
    version: str
    sha256: str
    path: Path
    bytes: int
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    source: str
    wanted: bool
    reason: str | None
    created: float


@dataclass(frozen=True, slots=True)
class MatrixRecord:
    """One stored matrix; `path` is a bundle with indptr, indices, data, shape."""

    id: str
    name: str | None
    shape: tuple[int, int]
    nnz: int
    dtype: str
    index_dtype: str
    bytes: int
    sha256: str
    path: Path
    created: float

    def to_json(self) -> dict[str, Any]:
        """What a caller may see."""
        names = ("id", "name", "shape", "nnz", "dtype", "bytes", "created")
        return {name: getattr(self, name) for name in names}


def matrix_id(sha256: str) -> str:
    """Public name of the matrix whose resident form has this hash."""
    return f"m-{sha256[:16]}"


def is_matrix_id(name: str) -> bool:
    """Whether a servable of this name is a matrix."""
    return _MATRIX_ID.fullmatch(name) is not None


def is_name(name: str) -> bool:
    """Whether a model can have this name."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return a usable model name unchanged.

    Raises:
        ImpossibleError: when it is not one.
    """
    if not is_name(name) or name in {".", ".."}:
        raise ImpossibleError(
            f"model name {name[:200]!r} is not usable: 1 to 128 of A-Z a-z 0-9 . _ -"
        )
    if is_matrix_id(name):
        raise ImpossibleError(f"model name {name!r} has the form of a matrix id")
    return name


def is_version(version: str) -> bool:
    """Whether a version can have this name."""
    return _VERSION.fullmatch(version) is not None


def check_version(version: str) -> str:
    """Return a usable version unchanged.

    Raises:
        ImpossibleError: when it is not one.
    """
    if not is_version(version):
        raise ImpossibleError(
            f"version {version[:40]!r} is not usable: a positive number without sign"
        )
    return version
