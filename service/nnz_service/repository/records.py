"""What the catalog says about stored models and matrices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnz_service.errors import ConflictError, ImpossibleError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MATRIX_ID = re.compile(r"m-[0-9a-f]{16}")
#: What a matrix's description says beside its sizes.
FACTS = (
    "symmetry", "pattern_symmetric", "row_nnz", "bandwidth", "zero_diagonal",
    "stored_zeros", "finite", "pattern",
)  # fmt: skip
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
    #: Hash of the blob that holds the places of the entries; None: its own does.
    pattern: str | None = None
    #: Whether a worker should always hold it.
    pinned: bool | None = None
    #: What `algebra.facts` found; None while nobody looked.
    facts: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """What a caller may see; facts that nobody found are null."""
        names = (
            "id", "name", "shape", "nnz", "dtype", "index_dtype", "bytes", "created",
        )  # fmt: skip
        rows, columns = self.shape
        width = {"FP32": 4, "FP64": 8}.get(self.dtype, 16)
        return {
            **{name: getattr(self, name) for name in names},
            "pinned": bool(self.pinned),
            "density": self.nnz / max(rows * columns, 1),
            "dense_bytes": dense if (dense := rows * columns * width) < 2**63 else None,
            **{name: (self.facts or {}).get(name) for name in FACTS},
        }


def check_same(old: MatrixRecord, blob: Blob, info: Mapping[str, Any]) -> None:
    """Refuse other content of an id that is taken: 64 bits of a hash can be made to.

    Args:
        old: What is stored under the id.
        blob: The new content, or its values alone.
        info: Of the new one: `shape`, `nnz`, `dtype`; `pattern` if it has one.

    Raises:
        ConflictError: It is another matrix.
    """
    sizes = (*info["shape"], info["nnz"], info["dtype"])
    same = (*old.shape, old.nnz, old.dtype) == sizes
    if old.pattern is None and info.get("pattern") is None:
        same = same and old.sha256 == blob.sha256
    if not same:
        raise ConflictError(
            f"another matrix is stored as {old.id}; change a value of this one"
        )


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


def matrix_row(
    identity: str, name: str | None, blob: Blob, info: Mapping[str, Any], now: float
) -> dict[str, Any]:
    """Return what the catalog writes down of a new matrix."""
    rows, columns = info["shape"]
    return {
        "id": identity,
        "name": name,
        "rows": rows,
        "columns": columns,
        "nnz": info["nnz"],
        "dtype": info["dtype"],
        "index_dtype": info["index_dtype"],
        "bytes": blob.bytes,
        "sha256": blob.sha256,
        "created": now,
        "facts": info.get("facts"),
        "pattern": info.get("pattern"),
    }
