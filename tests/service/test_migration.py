"""A catalog of an older version gets what it lacks."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, inspect, text

from nnz_service.database import (
    add_missing_columns,
    create_tables,
    open_database,
    writing,
)
from nnz_service.errors import ServiceError
from nnz_service.jobs import SqlStore, Status

#: As version 0.1.0 made it.
OLD = (
    """CREATE TABLE jobs (
        number {serial} NOT NULL PRIMARY KEY,
        id VARCHAR(18) NOT NULL UNIQUE,
        kind VARCHAR(32) NOT NULL,
        params JSON NOT NULL,
        status VARCHAR(16) NOT NULL,
        created {real} NOT NULL,
        inputs_sha VARCHAR(64),
        progress JSON NOT NULL,
        result JSON,
        result_sha VARCHAR(64),
        error VARCHAR,
        started {real},
        finished {real},
        cancel_requested BOOLEAN NOT NULL,
        attempts INTEGER NOT NULL,
        token INTEGER NOT NULL,
        worker VARCHAR(64),
        checkpoint VARCHAR(64),
        idempotency_key VARCHAR(256) UNIQUE,
        fingerprint VARCHAR(64) NOT NULL
    )""",
    "CREATE INDEX ix_jobs_status ON jobs (status)",
    """INSERT INTO jobs (id, kind, params, status, created, progress,
        cancel_requested, attempts, token, checkpoint, fingerprint)
        VALUES ('j-0123456789abcdef', 'cg', '{{"matrix": "m"}}', 'queued', 5, '{{}}',
        {no}, 2, 2, 'c0', 'f')""",
)


def make_old(catalog: Path | str) -> None:
    engine = open_database(catalog)
    sqlite = engine.dialect.name == "sqlite"
    words = {
        "serial": "INTEGER" if sqlite else "SERIAL",
        "real": "FLOAT",
        "no": "0" if sqlite else "false",
    }
    with writing(engine) as connection:
        for statement in OLD:
            connection.exec_driver_sql(statement.format(**words).replace("%", "%%"))
    engine.dispose()


def test_old_jobs_go_on(catalog: Path | str) -> None:
    make_old(catalog)

    store = SqlStore(catalog)

    job = store.claim("w", ["cg"])
    assert job is not None
    assert (job.id, job.attempts, job.checkpoint) == ("j-0123456789abcdef", 3, "c0")
    assert (job.owner, job.revision, job.fruitless) == ("", 2, 1)
    end = store.finish(job.id, job.token, Status.SUCCEEDED, seconds=1.0)
    assert store.list(owner="") == [end]
    assert store.submit("cg", {}, owner="ann").owner == "ann"
    store.close()


def test_columns_and_indices_are_those_of_a_new_one(
    catalog: Path | str, tmp_path: Path
) -> None:
    make_old(catalog)
    new = tmp_path / "new.sqlite"
    shapes = []
    for where in (catalog, new):
        SqlStore(where).close()
        engine = open_database(where)
        found = inspect(engine)
        columns = {column["name"] for column in found.get_columns("jobs")}
        indices = {index["name"] for index in found.get_indexes("jobs")}
        shapes.append((columns, {name for name in indices if name.startswith("ix_")}))
        engine.dispose()

    (columns, indices), (expected, needed) = shapes
    assert columns == expected
    assert indices >= needed


def test_several_that_start_at_once(catalog: Path | str) -> None:
    make_old(catalog)
    faults: list[BaseException] = []

    def start() -> None:
        try:
            SqlStore(catalog).close()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []


def test_a_second_start_changes_nothing(catalog: Path | str) -> None:
    store = SqlStore(catalog)
    job = store.submit("cg", {})

    create_tables(store._engine)

    assert store.get(job.id) == job
    store.close()


@pytest.mark.parametrize("options", [{"primary_key": True}, {"nullable": False}])
def test_a_column_that_cannot_be_added(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    """It is refused with its name, and nothing is changed."""
    engine = open_database(tmp_path / "x.sqlite")
    metadata = MetaData()
    Table(
        "things", metadata, Column("note", String), Column("size", Integer, **options)
    )
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE things (name VARCHAR)"))

    with (
        pytest.raises(ServiceError, match="things of the catalog has no column size"),
        writing(engine) as connection,
    ):
        add_missing_columns(connection, metadata)

    columns = [column["name"] for column in inspect(engine).get_columns("things")]
    assert columns == ["name"]
    engine.dispose()
