"""Tables of the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Row,
    String,
    Table,
)

from nnz_service.database import METADATA
from nnz_service.repository.records import MatrixRecord, ModelRecord

MODELS = Table(
    "models",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("path", String),  # of a file in the folder of models; blobs are in the store
    Column("bytes", BigInteger, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("outputs", JSON, nullable=False),
    Column("source", String(16), nullable=False),
    Column("wanted", Boolean, nullable=False),
    Column("reason", String),
    Column("created", Float, nullable=False),
)

MATRICES = Table(
    "matrices",
    METADATA,
    Column("id", String(18), primary_key=True),
    Column("name", String(128)),
    Column("rows", BigInteger, nullable=False),
    Column("columns", BigInteger, nullable=False),
    Column("nnz", BigInteger, nullable=False),
    Column("dtype", String(8), nullable=False),
    Column("index_dtype", String(8), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("created", Float, nullable=False),
    Column("facts", JSON(none_as_null=True)),  # null until somebody looked at it
    # Of the matrix whose file holds the places of the entries, where another does.
    Column("pattern", String(64), index=True),
    Column("pinned", Boolean),  # whether a worker should always hold it
)

#: The name and the time are those of the owner's own upload.
MATRIX_OWNERS = Table(
    "matrix_owners",
    METADATA,
    Column("matrix", String(18), ForeignKey("matrices.id"), primary_key=True),
    Column("owner", String(64), primary_key=True),
    Column("name", String(128)),
    Column("created", Float, nullable=False),
)


#: The one home whose files a catalog records, when it is not in that home itself.
HOMES = Table("homes", METADATA, Column("id", String(32), primary_key=True))


def model_of(row: Row[Any], blobs: Path) -> ModelRecord:
    """Turn a row of MODELS into a record; `blobs` is the folder of blobs."""
    fields = dict(row._mapping)
    fields["version"] = str(fields["version"])
    fields["path"] = Path(fields["path"] or blobs / fields["sha256"])
    return ModelRecord(**fields)


def matrix_of(row: Row[Any], blobs: Path) -> MatrixRecord:
    """Turn a row of MATRICES into a record; `blobs` is the folder of blobs."""
    fields = dict(row._mapping)
    fields["shape"] = (fields.pop("rows"), fields.pop("columns"))
    fields["path"] = blobs / fields["sha256"]
    return MatrixRecord(**fields)
