"""Which blobs the records of models and matrices need."""

from __future__ import annotations

from sqlalchemy import Connection, select

from nnz_service.repository.tables import MATRICES, MODELS

_COLUMNS = (MODELS.c.sha256, MATRICES.c.sha256, MATRICES.c.pattern)


def used(connection: Connection) -> set[str]:
    """Every blob that a record needs."""
    return {
        sha
        for column in _COLUMNS
        for (sha,) in connection.execute(select(column))
        if sha is not None
    }


def is_used(connection: Connection, sha256: str) -> bool:
    """Whether a record needs a blob; each column has an index."""
    queries = (select(one).where(one == sha256).limit(1) for one in _COLUMNS)
    return any(connection.execute(query).first() is not None for query in queries)
