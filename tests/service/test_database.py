from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import Column, Integer, Table, insert, select, update

from nnz_service.database import (
    METADATA,
    create_tables,
    open_database,
    reading,
    writing,
)

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
