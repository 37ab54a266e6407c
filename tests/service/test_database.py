from __future__ import annotations

import threading
import traceback
from pathlib import Path

import pytest
from service.postgres import PASSWORD, Postgres
from sqlalchemy import Column, Integer, Table, insert, select, text, update

from nnz_service.database import (
    METADATA,
    create_tables,
    open_database,
    open_tables,
    reading,
    why,
    writing,
)
from nnz_service.errors import DatabaseAwayError, ServiceError, StorageFullError

COUNTER = Table("test_counter", METADATA, Column("value", Integer, nullable=False))


class TestWriting:
    def test_read_then_write_never_loses_an_update(self, tmp_path: Path) -> None:
        engine = open_database(tmp_path / "new folder" / "x.sqlite")
        create_tables(engine)
        with writing(engine) as connection:
            connection.execute(insert(COUNTER).values(value=0))

        def add() -> None:
            for _ in range(25):
                with writing(engine) as connection:
                    value = connection.execute(select(COUNTER.c.value)).scalar_one()
                    connection.execute(update(COUNTER).values(value=value + 1))

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        with reading(engine) as connection:
            assert connection.execute(select(COUNTER.c.value)).scalar_one() == 100
        engine.dispose()

    def test_an_error_leaves_nothing(self, tmp_path: Path) -> None:
        engine = open_database(tmp_path / "x.sqlite")
        create_tables(engine)
        try:
            with writing(engine) as connection:
                connection.execute(insert(COUNTER).values(value=1))
                raise KeyError
        except KeyError:
            pass

        with reading(engine) as connection:
            assert connection.execute(select(COUNTER)).all() == []
        engine.dispose()

    def test_readers_do_not_wait_for_a_writer(self, tmp_path: Path) -> None:
        engine = open_database(tmp_path / "x.sqlite")
        create_tables(engine)

        with writing(engine) as writer, reading(engine) as reader:
            writer.execute(insert(COUNTER).values(value=1))
            assert reader.execute(select(COUNTER)).all() == []

        engine.dispose()

    def test_write_ahead_log(self, tmp_path: Path) -> None:
        engine = open_database(tmp_path / "x.sqlite")

        with reading(engine) as connection:
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()

        assert mode == "wal"
        engine.dispose()


class TestPostgres:
    def test_read_then_write_never_loses_an_update(self, postgres: Postgres) -> None:
        """The lock is held from the start, as on SQLite."""
        engine = open_database(postgres.database())
        create_tables(engine)
        with writing(engine) as connection:
            connection.execute(insert(COUNTER).values(value=0))

        def add() -> None:
            for _ in range(10):
                with writing(engine) as connection:
                    value = connection.execute(select(COUNTER.c.value)).scalar_one()
                    connection.execute(update(COUNTER).values(value=value + 1))

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        with reading(engine) as connection:
            assert connection.execute(select(COUNTER.c.value)).scalar_one() == 40
        engine.dispose()

    def test_a_reader_sees_one_state(self, postgres: Postgres) -> None:
        engine = open_database(postgres.database())
        create_tables(engine)

        with reading(engine) as reader:
            assert reader.execute(select(COUNTER)).all() == []
            with writing(engine) as writer:
                writer.execute(insert(COUNTER).values(value=1))
            assert reader.execute(select(COUNTER)).all() == []
        engine.dispose()

    def test_away_and_back(self, postgres: Postgres) -> None:
        """While it is away calls say so; afterwards they work on the same engine."""
        engine = open_database(postgres.database())
        create_tables(engine)
        with writing(engine) as connection:
            connection.execute(insert(COUNTER).values(value=7))
        postgres.stop()
        try:
            for transaction in (reading, writing):
                with pytest.raises(DatabaseAwayError) as caught, transaction(engine):
                    pass
                assert caught.value.status == 503
                assert caught.value.retry_after
        finally:
            postgres.start()

        with reading(engine) as connection:
            assert connection.execute(select(COUNTER.c.value)).scalar_one() == 7
        engine.dispose()

    def test_cut_in_the_middle(self, postgres: Postgres) -> None:
        """What was not committed is not there."""
        engine = open_database(postgres.database())
        create_tables(engine)

        def write() -> None:
            with writing(engine) as connection:
                connection.execute(insert(COUNTER).values(value=7))
                postgres.stop()
                connection.execute(insert(COUNTER).values(value=8))

        try:
            with pytest.raises(DatabaseAwayError):
                write()
        finally:
            postgres.start()

        with reading(engine) as connection:
            assert connection.execute(select(COUNTER)).all() == []
        engine.dispose()

    def test_opened_while_it_is_away(self, postgres: Postgres) -> None:
        """A process that starts again meanwhile does not end."""
        url = postgres.database()
        create_tables(engine := open_database(url))
        engine.dispose()
        postgres.stop()
        try:
            engine = open_tables(url)
        finally:
            postgres.start()

        with reading(engine) as connection:
            assert connection.execute(select(COUNTER)).all() == []
        engine.dispose()


class TestUrl:
    @pytest.mark.parametrize(
        "url",
        [
            "mysql://nnz:hidden@host/db",
            "nonsense-hidden",
            "postgresql+asyncpg://nnz:hidden@host/db",
            "postgresql://nnz:hidden@host:port/db",
        ],
    )
    def test_not_usable(self, url: str) -> None:
        with pytest.raises(ServiceError, match=r"postgresql.*user:password") as caught:
            open_database(url)

        assert "hidden" not in str(caught.value)

    def test_password_is_not_shown(self, postgres: Postgres) -> None:
        """Callers learn that it is away, operators why, and nobody the password."""
        engine = open_database(postgres.url("no_such_database"))

        with pytest.raises(DatabaseAwayError) as caught:
            create_tables(engine)

        assert "no_such_database" not in str(caught.value)
        assert "no_such_database" in why(caught.value)
        shown = "".join(traceback.format_exception(caught.value))
        assert PASSWORD not in shown + repr(engine)
        engine.dispose()


def test_a_full_database_says_so(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "x.sqlite")

    def fill() -> None:
        with writing(engine) as connection:
            connection.execute(text("PRAGMA max_page_count = 2"))
            connection.execute(text("CREATE TABLE t (x)"))
            connection.execute(text("INSERT INTO t VALUES (zeroblob(100000))"))

    with pytest.raises(StorageFullError):
        fill()
    engine.dispose()
