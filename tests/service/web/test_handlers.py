"""What a fault inside becomes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from nnz_service.database import open_database, writing
from nnz_service.errors import StorageFullError
from nnz_service.gateway.faults import fault_of
from nnz_service.web.handlers import error_answer


def full_database(path: Path) -> DBAPIError:
    """The error of a database that cannot grow."""
    engine = open_database(path)
    with writing(engine) as connection:
        connection.execute(text("PRAGMA max_page_count = 2"))
        connection.execute(text("CREATE TABLE t (x)"))
        insert = text("INSERT INTO t VALUES (zeroblob(100000))")
        with pytest.raises(DBAPIError) as caught:
            connection.execute(insert)
    engine.dispose()
    return caught.value


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(number: int) -> None:
    fault = fault_of(OSError(number, "no room", "/secret/path"), "r-1")

    assert isinstance(fault, StorageFullError)
    assert error_answer(fault).status_code == 507
    assert "secret" not in str(fault)


def test_full_database(tmp_path: Path) -> None:
    assert isinstance(fault_of(full_database(tmp_path / "c"), "r-1"), StorageFullError)


def test_any_other_fault() -> None:
    fault = fault_of(OSError(errno.EIO, "broken", "/secret/path"), "r-1")

    assert error_answer(fault).status_code == 500
    assert "r-1" in str(fault)
    assert "secret" not in str(fault)
