"""Several processes and threads at one database."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from service.jobs.stores import KINDS
from service.postgres import Postgres
from sqlalchemy import select

from nnz_service.database import writing
from nnz_service.jobs import (
    SqlStore,
    changes,
)
from nnz_service.jobs.tables import JOBS, values_of


class TestSqlStore:
    def test_another_process_sees_it(self, catalog: Path | str) -> None:
        one, two = SqlStore(catalog), SqlStore(catalog)

        job = one.submit("cg", {"matrix": "m"}, "aa", "key")

        assert two.get(job.id) == job
        assert two.submit("cg", {"matrix": "m"}, "aa", "key") == job
        one.close()
        two.close()

    def test_a_key_of_an_older_version(self, catalog: Path | str) -> None:
        """It was kept in clear text, and still finds its job."""
        store = SqlStore(catalog)
        job = store.submit("cg", {}, "aa", "key")
        with writing(store._engine) as connection:
            connection.exec_driver_sql("UPDATE jobs SET idempotency_key = 'key'")

        assert store.submit("cg", {}, "aa", "key").id == job.id
        assert store.submit("cg", {}, "aa", "key", "ann").id != job.id
        store.close()

    def test_release_waits_for_who_records(self, catalog: Path | str) -> None:
        """A blob that is being recorded is not taken for one that nobody needs."""
        store = SqlStore(catalog)
        dropped: list[str] = []
        release = threading.Thread(target=store.release, args=(["in"], dropped.append))
        with writing(store._engine, beside=True) as connection:
            job = changes.new_job("cg", {}, "in", "", 0.0)
            row = values_of(job) | {"fingerprint": ""}
            connection.execute(JOBS.insert().values(row))
            release.start()
            release.join(0.3)
            assert release.is_alive()

        release.join(10)
        assert not release.is_alive()
        assert dropped == []
        store.close()

    def test_writers_do_not_wait_for_one_another(self, postgres: Postgres) -> None:
        """On PostgreSQL each locks its own rows."""
        url = postgres.database()
        store = SqlStore(url)
        for n in range(2):
            store.submit("cg", {"n": n})
        query = select(JOBS).order_by(JOBS.c.number).limit(1).with_for_update()
        with writing(store._engine, beside=True) as connection:
            held = connection.execute(query).one()

            other = store.claim("w", KINDS)
            store.submit("cg", {})

            assert other is not None
            assert other.id != held.id
        store.close()

    @pytest.mark.slow
    def test_two_processes_with_one_key(self, catalog: Path | str) -> None:
        SqlStore(catalog).close()
        program = (
            "import sys; from pathlib import Path\n"
            "from nnz_service.jobs import SqlStore\n"
            "where = sys.argv[1] if '://' in sys.argv[1] else Path(sys.argv[1])\n"
            "store = SqlStore(where); print('ready', flush=True); input()\n"
            "for n in range(40):\n"
            "    print(store.submit('cg', {}, 'aa', f'key {n}').id)\n"
            "store.close()\n"
        )
        command = [sys.executable, "-c", program, str(catalog)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        both = [subprocess.Popen(command, **pipes) for _ in range(2)]
        for one in both:
            assert one.stdout.readline() == "ready\n"
        for one in both:
            one.stdin.write("go\n")
            one.stdin.flush()

        first, second = (one.communicate(timeout=60)[0].split() for one in both)

        assert len(first) == 40
        assert first == second
        store = SqlStore(catalog)
        assert len(store.list(1000)) == 40
        store.close()
