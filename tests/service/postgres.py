"""A real PostgreSQL from the machine's packages, on a socket in a folder of its own."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

#: Never printed by anything that is tested.
PASSWORD = "s3cret-of-the-tests"
_ROOTS = "/usr/lib/postgresql"
#: For tests a crash of the machine is no matter.
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def folder_of_programs() -> Path | None:
    """The newest installed version's programs; None when there is none."""
    found = sorted(Path(_ROOTS).glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Postgres:
    """One server; every `database()` is fresh."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # It refuses to run as root, and its user must reach the folder.
        self.folder = Path(tempfile.mkdtemp(prefix="nnz-pg-"))
        self._user = _user()
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if self._user is not None:
                shutil.chown(self.folder, self._user)
            options = ["--username=nnz", "--auth=trust", "--no-sync", "--encoding=UTF8"]
            self._run("initdb", f"--pgdata={self.folder / 'data'}", *options)
            self.start()
        except BaseException:
            self.close()
            raise

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://nnz:{PASSWORD}@/{database}?host={self.folder}"

    def database(self) -> str:
        """Make an empty database; returns its URL."""
        name = f"d{next(self._numbers)}"
        self._ask(f"CREATE DATABASE {name}")
        return self.url(name)

    def start(self) -> None:
        settings = ("listen_addresses=", f"unix_socket_directories={self.folder}")
        words = [word for one in (*settings, *_FAST) for word in ("-c", one)]
        command = [self._programs / "postgres", "-D", self.folder / "data", *words]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self._user, cwd=self.folder
            )
        end = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "PostgreSQL did not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """End it as an administrator does who is in a hurry: connections are cut."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            self._ask("SELECT 1")
        except OperationalError:
            return False
        return True

    def _ask(self, statement: str) -> None:
        url = self.url().replace("postgresql:", "postgresql+psycopg:")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()

    def _run(self, program: str, *words: str) -> None:
        command = [self._programs / program, *words]
        done = subprocess.run(
            command, capture_output=True, text=True, user=self._user, cwd=self.folder
        )
        assert done.returncode == 0, done.stderr


def _user() -> str | None:
    """Whom it runs as; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)
