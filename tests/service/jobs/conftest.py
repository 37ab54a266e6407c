"""Every store under the same tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnz_service.jobs import JobStore, MemoryStore, SqlStore


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    ticks = itertools.count(1000.0)

    def clock() -> float:
        return next(ticks)

    made: JobStore
    if request.param == "memory":
        made = MemoryStore(clock)
    elif request.param == "sqlite":
        made = SqlStore(tmp_path / "catalog.sqlite", clock)
    else:
        made = SqlStore(request.getfixturevalue("postgres").database(), clock)
    yield made
    made.close()
