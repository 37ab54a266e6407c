"""Real processes for the slow tests; every one is ended by its id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import orjson
import platformdirs

T = TypeVar("T")

#: The first start after a change of the kernels compiles all of them.
START_SECONDS = 600.0
SOON = 30.0
_SERVE = (
    "import sys; from nnz_service import supervisor; "
    "from nnz_service.settings import Settings; sys.exit(supervisor.serve(Settings()))"
)


def environment(**settings: Any) -> dict[str, str]:
    """Ours, with compiled kernels kept from run to run and no settings but these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NNZ_")}
    cache = Path(platformdirs.user_cache_dir("nnz")) / "numba"
    kept.setdefault("NUMBA_CACHE_DIR", str(cache))
    kept["NNZ_DEVICE"] = "cpu"
    return kept | {f"NNZ_{k.upper()}": str(v) for k, v in settings.items()}


def until(look: Callable[[], T], seconds: float = SOON) -> T:
    """Look again and again until it gives something true."""
    limit = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > limit:
            raise AssertionError(f"still {found!r} after {seconds} s")
        time.sleep(0.02)
    return found


def children(pid: int) -> dict[str, int]:
    """Process ids by module of a process's living children."""
    return dict(living(pid))


def living(pid: int) -> list[tuple[str, int]]:
    """Module and process id of each of a process's living children."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z" and b"-m" in command:
            module = command[command.index(b"-m") + 1].decode()
            found.append((module, int(entry.name)))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs and is not merely waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX"


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Server:
    """`nnz serve` on a free port."""

    def __init__(
        self, home: Path, *, stderr: int | None = None, **settings: Any
    ) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            env=environment(home=home, port=0, **settings),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    @property
    def state(self) -> dict[str, Any]:
        """What `run/server.json` says."""
        path = self.home / "run" / "server.json"
        return dict(orjson.loads(path.read_bytes())) if path.exists() else {}

    @property
    def url(self) -> str:
        return str(until(lambda: self.state.get("url")))

    def ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/v2/health/ready").status_code == 200
        except httpx2.TransportError:
            return False

    def wait(self) -> None:
        until(self.ready, START_SECONDS)

    def child(self, name: str) -> int:
        """Process id of the worker or the web process, once it is there."""
        module = f"nnz_service.{name}_main"
        return int(until(lambda: children(self.process.pid).get(module)))

    def close(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(SOON)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
        return code
