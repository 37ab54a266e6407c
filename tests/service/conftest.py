"""Fixtures of the service: a database, and memory to share with a server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.utils.shared_memory as shm
from service.postgres import Postgres, folder_of_programs


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; tests that stop it start it again."""
    programs = folder_of_programs()
    if programs is None and os.environ.get("NNZ_REQUIRE"):
        pytest.fail("NNZ_REQUIRE is set, but PostgreSQL is not installed")
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    pytest.importorskip("psycopg")
    server = Postgres(programs)
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where an empty catalog is: SQLite and PostgreSQL in turn."""
    if request.param == "sqlite":
        return tmp_path / "catalog.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture
def database_url(catalog: Path | str) -> str | None:
    """The same as a setting; None for SQLite in the home."""
    return catalog if isinstance(catalog, str) else None


@pytest.fixture
def memory() -> Iterator[Any]:
    """A shared memory object of ours with room for x, y and something before."""
    handle = shm.create_shared_memory_region("r", f"nnz-{uuid.uuid4().hex}", 64)
    yield handle
    shm.destroy_shared_memory_region(handle)
