"""Start ``nnz serve`` as a process of its own, wait until it is ready, stop it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import platformdirs

#: Seconds without progress: the first start on a machine compiles every kernel, which
#: takes minutes, and more where others use it too, but each of them is told.
STILL_LIMIT, STOP_LIMIT = 120.0, 20.0
PATIENCE = 10.0  # seconds without any answer
SHOWN_LINES = 30  # of the server's log, when it does not start


class ServerFailedError(Exception):
    """The server ended or did not become ready; the message holds its last words."""


@contextlib.contextmanager
def running(tell: Callable[[str], None]) -> Iterator[str]:
    """Run a server in a temporary folder on a free port; yields its URL.

    Compiled kernels are kept in the user's cache, so that only the first start waits
    for the compiler. `tell` is called with what the server is doing meanwhile.
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
            url = _listening(process, home, log)

            def check() -> None:
                if process.poll() is not None:
                    raise ServerFailedError(_last_words(process, log))

            wait_until_ready(url, tell, check)
            yield url
        finally:
            _stop(process)


def _listening(process: subprocess.Popen[bytes], home: Path, log: Path) -> str:
    """Return the URL as soon as the server has written down where it listens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailedError(_last_words(process, log))
        with contextlib.suppress(OSError, ValueError, KeyError):
            return str(json.loads((home / "run" / "server.json").read_text())["url"])
        time.sleep(0.1)
    raise ServerFailedError(f"not listening after {PATIENCE:.0f} s:\n{_tail(log)}")


def _last_words(process: subprocess.Popen[bytes], log: Path) -> str:
    return f"the server ended with {process.returncode}:\n{_tail(log)}"


def wait_until_ready(
    url: str,
    tell: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
    patience: float = PATIENCE,
) -> None:
    """Wait while a server starts.

    Args:
        url: Of the server.
        tell: Called with what the server says that it is doing.
        check: Called between two questions; raises when waiting is of no use.
        patience: Seconds without any answer after which it gives up.

    Raises:
        ServerFailedError: nobody answers, or it does not become ready in time.
    """
    moved = heard = time.monotonic()
    told = ""
    while True:
        check()
        ready, doing = _health(url)
        if ready:
            return
        now = time.monotonic()
        heard = now if doing else heard
        if now - heard > patience:
            raise ServerFailedError(f"nobody answers at {url}")
        if doing not in ("", told):
            moved, told = now, doing
        if now - moved > STILL_LIMIT:
            raise ServerFailedError(f"{url} for {STILL_LIMIT:.0f} s: {told}")
        if doing:
            tell(doing.removeprefix("not ready: "))
        time.sleep(0.2)


def _health(url: str) -> tuple[bool, str]:
    """Ask whether the server is ready; if not, what it is doing, "" for no answer."""
    try:
        answer = httpx2.get(f"{url}/v2/health/ready", timeout=5.0, trust_env=False)
        if answer.is_success:
            return True, ""
        return False, str(answer.json()["error"])
    except (httpx2.HTTPError, ValueError, KeyError):
        return False, ""


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN_LINES:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
