"""The one database of a server: SQLite in its home, or another by URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, create_engine, event

#: Every table of the service; each store defines its own in it.
METADATA = MetaData()

BUSY_MS = 10_000  # longer than any transaction of ours, also on a slow disk


def open_database(where: Path | str) -> Engine:
    """Open the catalog, making file and tables when they are not there.

    Args:
        where: Path of a SQLite file, or a database URL.
    """
    if isinstance(where, Path):
        where.parent.mkdir(parents=True, exist_ok=True)
        where = f"sqlite:///{where.resolve()}"
    engine = create_engine(where)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
    return engine


def create_tables(engine: Engine) -> None:
    """Make the tables of every store imported so far, where they are missing."""
    with writing(engine) as connection:
        METADATA.create_all(connection)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database and waits for nobody."""
    with engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that holds the write lock from its start.

    A deferred one could read first and then fail to write, because somebody else wrote
    in between: SQLite answers that with an error which no timeout cures.
    """
    with engine.connect() as plain:
        connection = plain.execution_options(nnz_writes=True)
        with connection.begin():
            yield connection


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # sqlite3 must not open transactions by itself
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # acknowledged means on the disk
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("nnz_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
