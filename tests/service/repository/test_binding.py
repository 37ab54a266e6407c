"""A home never meets a catalog that is not its own: its files would be swept."""

from __future__ import annotations

from pathlib import Path

import pytest
from service.postgres import Postgres

from nnz_service.errors import ConflictError
from nnz_service.repository import Repository


def bind(home: Path, url: str | None = None) -> None:
    repository = Repository(home, database_url=url)
    try:
        repository.bind()
    finally:
        repository.close()


def test_a_home_with_a_catalog_of_its_own(tmp_path: Path, postgres: Postgres) -> None:
    bind(tmp_path)
    bind(tmp_path)

    with pytest.raises(ConflictError, match="has a catalog of its own"):
        bind(tmp_path, postgres.database())


def test_a_home_and_its_database(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.database()
    home = tmp_path / "home"
    bind(home, url)
    bind(home, url)

    with pytest.raises(ConflictError, match="set NNZ_DATABASE_URL"):
        bind(home)
    with pytest.raises(ConflictError, match="another home"):
        bind(home, postgres.database())
    with pytest.raises(ConflictError, match="another home"):
        bind(tmp_path / "other", url)
