"""Start ``nnz serve`` as a process of its own, wait until it is ready, stop it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import platformdirs
from rich.console import Console

#: Seconds; the first start on a machine compiles every kernel.
START_LIMIT, STOP_LIMIT = 270.0, 20.0
SHOWN_LINES = 30  # of the server's log, when it does not start


class ServerFailedError(Exception):
    """The server ended or did not become ready; the message holds its last words."""


@contextlib.contextmanager
def running(console: Console) -> Iterator[str]:
    """Run a server in a temporary folder on a free port; yields its URL.

    Compiled kernels are kept in the user's cache, so that only the first start waits
    for the compiler.
    """
    with tempfile.TemporaryDirectory(prefix="nnz-demo-") as folder:
        home, log = Path(folder) / "home", Path(folder) / "server.log"
        command = [
            str(Path(sys.executable).with_name("nnz")), "serve",
            "--host", "127.0.0.1", "--port", "0", "--home", str(home),
        ]  # fmt: skip
        cache = Path(platformdirs.user_cache_dir("nnz")) / "numba"
        environment = {"NUMBA_CACHE_DIR": str(cache)} | os.environ
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command
                command, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield _wait(process, home, log, console)
        finally:
            _stop(process)


def _wait(
    process: subprocess.Popen[bytes], home: Path, log: Path, console: Console
) -> str:
    """Return the URL once the server is ready; show what it is at meanwhile."""
    deadline = time.monotonic() + START_LIMIT
    with console.status("starting the server") as status:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerFailedError(
                    f"the server ended with {process.returncode}:\n{_tail(log)}"
                )
            url = _url(home)
            if url is not None:
                ready, detail = _health(url)
                if ready:
                    return url
                status.update(f"starting the server, {detail}")
            time.sleep(0.2)
    raise ServerFailedError(f"not ready after {START_LIMIT:.0f} s:\n{_tail(log)}")


def _url(home: Path) -> str | None:
    """Read where the server listens; None until it has written that down."""
    try:
        return str(json.loads((home / "run" / "server.json").read_text())["url"])
    except (OSError, ValueError, KeyError):
        return None


def _health(url: str) -> tuple[bool, str]:
    """Ask whether the server is ready; if not, what it says that it is doing."""
    try:
        answer = httpx2.get(f"{url}/v2/health/ready", timeout=5.0, trust_env=False)
        return answer.is_success, answer.json()["error"] if answer.content else ""
    except (httpx2.HTTPError, ValueError, KeyError):
        return False, "not listening yet"


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN_LINES:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
