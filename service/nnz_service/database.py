"""The one database of a server: SQLite in its home, or PostgreSQL by URL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import (
    URL,
    BigInteger,
    Connection,
    Engine,
    Integer,
    MetaData,
    create_engine,
    event,
    inspect,
    make_url,
)
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.schema import CreateColumn

from nnz_service.errors import DatabaseAwayError, ServiceError, StorageFullError

#: Every table of the service; each store defines its own in it.
METADATA = MetaData()
#: Type of a column that counts rows: SQLite numbers only INTEGER keys by itself.
COUNTER = BigInteger().with_variant(Integer, "sqlite")

BUSY_MS = 10_000  # longer than any transaction of ours, also on a slow disk
#: Of advisory locks: whoever writes holds it shared, who must be alone holds it alone.
_LOCK = 0x6E6E7A
#: A lost server is noticed, and no statement waits for ever.
_POSTGRES: dict[str, Any] = {
    "application_name": "nnz",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    # Plans fit what is asked, and connection poolers need not know of statements.
    "prepare_threshold": None,
    "options": f"-c lock_timeout={BUSY_MS} -c statement_timeout={3 * BUSY_MS}",
}
_POOL: dict[str, Any] = {
    "pool_pre_ping": True,
    "pool_size": 4,
    "max_overflow": 6,
    "pool_timeout": BUSY_MS / 1000,
}
#: SQLSTATEs (PostgreSQL, appendix A): connection, shutdown, too many connections, lock
#: not available, deadlock, serialization, read-only after a fail-over.
_AWAY = ("08", "57P", "53300", "55P03", "40P01", "40001", "57014", "25006")
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DISK_FULL = "53100"


def catalog_of(home: Path, url: str | None) -> Path | str:
    """Where the catalog of a home is: its own file, or the database of the URL."""
    return url or home / "catalog.sqlite"


def open_database(where: Path | str) -> Engine:
    """Open the catalog; nothing is connected before the first transaction.

    Args:
        where: Path of a SQLite file, made when it is not there, or a database URL.

    Raises:
        ServiceError: The URL cannot be used; the message does not repeat it.
    """
    if isinstance(where, Path):
        where.parent.mkdir(parents=True, exist_ok=True)
        where = f"sqlite:///{where.resolve()}"
    url = _checked(where)
    options: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        # What the URL says itself comes first.
        asked = {k: v for k, v in _POSTGRES.items() if k not in url.query}
        options = {**_POOL, "connect_args": asked}
    try:
        engine = create_engine(
            url,
            # NaN is no JSON: PostgreSQL would refuse it.
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=json.loads,  # older catalogs may hold it
            **options,
        )
    except ImportError:
        raise ServiceError(
            "PostgreSQL needs psycopg: pip install 'nnz-server[postgres]'"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
    return engine


def open_tables(where: Path | str) -> Engine:
    """Open the catalog and make its tables, or bring them up to date.

    A server that is away when one of its processes starts again has its tables: they
    were made before.
    """
    engine = open_database(where)
    try:
        create_tables(engine)
    except DatabaseAwayError:
        pass  # the first call will say so
    except BaseException:
        engine.dispose()
        raise
    return engine


def create_tables(engine: Engine) -> None:
    """Make the tables of every store imported so far, columns and indices included."""
    with writing(engine) as connection:
        METADATA.create_all(connection)
        add_missing_columns(connection, METADATA)


def add_missing_columns(connection: Connection, metadata: MetaData) -> None:
    """Add the columns and indices that tables of an older version lack.

    Inside a transaction that holds the write lock: of several processes that start at
    once the first does it, and each of them finds all or nothing.

    Raises:
        ServiceError: A column needs a value in every row; it cannot be added.
    """
    found = inspect(connection)
    for table in metadata.sorted_tables:
        there = {column["name"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name in there:
                continue
            if column.primary_key or not (column.nullable or column.server_default):
                raise ServiceError(
                    f"table {table.name} of the catalog has no column {column.name}; "
                    "a catalog so old cannot be brought up to date"
                )
            words = str(CreateColumn(column).compile(dialect=connection.dialect))
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {words}")
        for index in table.indexes:
            index.create(connection, checkfirst=True)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database and waits for nobody.

    Raises:
        DatabaseAwayError: The database cannot be reached.
    """
    with _translated(), engine.connect() as plain:
        connection = plain
        if engine.dialect.name == "postgresql":
            connection = plain.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine, *, beside: bool = False) -> Iterator[Connection]:
    """A transaction that holds the write lock from its start.

    On SQLite a deferred one could read first and then fail to write, because somebody
    else wrote in between: an error which no timeout cures. On PostgreSQL each statement
    sees what was committed before it, so what was read under the lock stays true.

    With `beside`, where the database allows it, others that say the same may write at
    the same time: the caller locks the rows that it changes by itself.

    Raises:
        DatabaseAwayError: The database cannot be reached, or stays locked.
        StorageFullError: Its disk is full.
    """
    with _translated(), engine.connect() as plain:
        connection = plain.execution_options(nnz_writes=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                kind = "_shared" if beside else ""
                connection.exec_driver_sql(
                    f"SELECT pg_advisory_xact_lock{kind}({_LOCK})"
                )
            yield connection


def why(error: BaseException) -> str:
    """Say what an error was for the operator, who may know hosts and names."""
    cause = error.__cause__
    orig = cause.orig if isinstance(cause, DBAPIError) else None
    return str(error) if orig is None else f"{error}: {orig}"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        fault = _fault(error)
        if fault is None:
            raise
        raise fault from error


def _fault(error: SQLAlchemyError) -> ServiceError | None:
    """What an error of the database means to us; None for faults of our own."""
    if isinstance(error, PoolTimeoutError):
        return DatabaseAwayError("every connection to the database is in use")
    if not isinstance(error, DBAPIError):
        return None
    code = getattr(error.orig, "sqlite_errorcode", None)
    state = getattr(error.orig, "sqlstate", None)
    if code == sqlite3.SQLITE_FULL or state == _DISK_FULL:
        return StorageFullError(
            "the disk of the database is full; somebody must make room there"
        )
    away = error.connection_invalidated or (state or "").startswith(_AWAY)
    if code is None and state is None and isinstance(error, OperationalError):
        away = True  # no connection, so the server has said nothing
    if away or code in _BUSY:
        return DatabaseAwayError("the database cannot be reached, or is too busy")
    return None


def _checked(where: str) -> URL:
    try:
        url = make_url(where)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        url = None
    if url is not None and url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url is None or url.drivername not in ("sqlite", "postgresql+psycopg"):
        # Its text may hold a password.
        raise ServiceError(
            "the database URL cannot be used; it has the form "
            "postgresql+psycopg://user:password@host:5432/database"
        )
    return url


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
