"""`nnz serve`: holds the listening socket, keeps one worker and one web process alive.

It computes nothing and parses nothing, so that nothing but a signal ends it. Children
die with it, even when it is killed. Signals are taken synchronously, which leaves no
race between a child's end and the wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
from sqlalchemy.exc import SQLAlchemyError

from nnz_service import __version__, keys, logs
from nnz_service.database import catalog_of, why
from nnz_service.errors import ServiceError
from nnz_service.hardware import compiler_environment, gpus
from nnz_service.jobs import SqlStore
from nnz_service.repository import Repository
from nnz_service.repository.directory import scan
from nnz_service.settings import Settings

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_BACKLOG = 1024
_GRACE = {"web": 10.0, "worker": 5.0}  # seconds from SIGTERM to SIGKILL
_BACKOFF = (0.2, 10.0)  # seconds before a restart: first, longest
_HEALTHY = 30.0  # seconds of life after which a process counts as started
_NO_DEVICE = 78  # exit code of a worker that cannot have the device it was told to use
_GIVE_UP = 8  # ends in a row without that, and the server ends
_RUNTIME = "nnz-run-"  # how the names of runtime folders begin
_YOUNG = 60.0  # seconds
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: a forked child may not load anything


@dataclass(slots=True)
class Child:
    """One process that is started again when it ends."""

    name: str
    command: list[str]
    kind: str = "worker"
    environment: dict[str, str] = field(default_factory=dict)
    fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    due: float = 0.0  # when it is started again

    def start(self, environment: dict[str, str]) -> None:
        """Start it in a session of its own: Ctrl-C reaches the supervisor alone."""
        self.started = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - our own modules
            self.command,
            pass_fds=self.fds,
            env=environment | self.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )

    def ended(self) -> int | None:
        """The exit code of a process that ended, once; None otherwise."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        self.process = None
        now = time.monotonic()
        self.failures = 1 if now - self.started > _HEALTHY else self.failures + 1
        first, longest = _BACKOFF
        self.due = now + min(first * 2 ** (self.failures - 1), longest)
        return code


@dataclass(slots=True)
class Supervisor:
    """The children of one server and the environment that they get."""

    children: list[Child]
    environment: dict[str, str]
    runtime: Path
    log: Any = field(default_factory=logs.logger)

    def run(self) -> int:
        """Keep the children alive until a signal; returns the exit code."""
        for child in self.children:
            child.start(self.environment)
        while True:
            number = signal.sigtimedwait(_SIGNALS, self._pause())
            if number is not None and number.si_signo != signal.SIGCHLD:
                return 0
            for child in self.children:
                if (code := child.ended()) is not None:
                    self.log.error("process ended", child=child.name, code=code)
                if code == _NO_DEVICE:  # it has said why; another would say the same
                    return 1
                if child.failures >= _GIVE_UP:
                    self.log.error("giving up", child=child.name)
                    return 1
            self._restart()

    def stop(self) -> None:
        """End the children, web first, so that it can still answer what it took.

        A second signal ends them at once.
        """
        hurry = False
        for child in reversed(self.children):
            if child.process is not None:
                hurry = self._end(child, child.process, hurry=hurry)

    def _end(
        self, child: Child, process: subprocess.Popen[bytes], *, hurry: bool
    ) -> bool:
        """SIGTERM, then SIGKILL when it lasts; returns whether there is a hurry."""
        process.terminate()
        until = time.monotonic() + _GRACE[child.kind]
        while not hurry and process.poll() is None:
            left = until - time.monotonic()
            number = signal.sigtimedwait(_SIGNALS, max(left, 0))
            hurry = number is not None and number.si_signo != signal.SIGCHLD
            if left <= 0:
                self.log.warning("killed, it did not end", child=child.name)
                break
        process.kill()
        process.wait()
        return hurry

    def _pause(self) -> float:
        dues = [child.due for child in self.children if child.process is None]
        return max(0.0, min(dues, default=time.monotonic() + 60) - time.monotonic())

    def _restart(self) -> None:
        # Machines that run for long clean their folder of temporary files.
        if not self.runtime.is_dir():
            self.runtime.mkdir(mode=0o700)
            _hold(self.runtime)
        for child in self.children:
            if child.process is None and time.monotonic() >= child.due:
                child.start(self.environment)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; only from the main thread.

    Returns:
        The exit code: 0 when told to stop, 1 when it cannot start or go on.
    """
    logs.configure(settings.log_level, "supervisor")
    try:
        keys.check_bind(settings.host, settings.key, insecure=settings.insecure)
        home = settings.home.resolve()
        with _lock(home), _listen(settings) as listener, _runtime() as folder:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                return _serve(settings, home, listener, folder)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except (ServiceError, OSError, SQLAlchemyError) as error:
        print(f"nnz: {why(error)}", file=sys.stderr)
        return 1


def _serve(
    settings: Settings, home: Path, listener: socket.socket, folder: Path
) -> int:
    _prepare(home, settings)
    url = _url(settings.host, listener)
    supervisor = _supervisor(settings, home, listener, folder / "worker")
    state = home / "run" / "server.json"
    _announce(url, home, settings)
    state.write_bytes(orjson.dumps({"url": url, "pid": os.getpid()}))
    try:
        return supervisor.run()
    finally:
        state.unlink(missing_ok=True)
        supervisor.stop()


def _supervisor(
    settings: Settings, home: Path, listener: socket.socket, pipe: Path
) -> Supervisor:
    python = [sys.executable, "-m"]
    environment = os.environ | settings.to_environment() | {"NNZ_HOME": str(home)}
    environment.setdefault("NUMBA_CACHE_DIR", str(home / "cache" / "numba"))
    environment |= compiler_environment(settings.cpu_target)
    # The kernels have threads of their own; those of BLAS beside them only fight for
    # the cores (a conjugate gradients step took nine times as long on a busy machine).
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    workers = _workers(settings, home, pipe)
    sockets = [word for path in workers for word in ("--worker", str(path))]
    fd = listener.fileno()
    web = ["nnz_service.web_main", "--fd", str(fd), *sockets]
    children = [*workers.values(), Child("web", python + web, "web", {}, (fd,))]
    return Supervisor(children, environment, pipe.parent)


def _workers(settings: Settings, home: Path, pipe: Path) -> dict[Path, Child]:
    """Return the workers by their sockets: one a GPU, or as many as are asked for."""
    # Without CuPy each of them would be one more worker on the CPU.
    usable = settings.device != "cpu" and importlib.util.find_spec("cupy") is not None
    cards = gpus(os.environ) if usable else ()
    count = settings.workers or max(len(cards), 1)
    threads = [] if settings.threads is None else ["--threads", str(settings.threads)]
    workers = {}
    for number in range(count):
        path = pipe if count == 1 else pipe.with_name(f"{pipe.name}{number}")
        command = [
            *(sys.executable, "-m", "nnz_service.worker_main", "--home", str(home)),
            *("--socket", str(path), "--number", str(number)),
            *("--log-level", settings.log_level, "--device", settings.device),
            *("--precision", settings.precision, *threads),
            *("--job-ttl", str(settings.job_ttl), "--job-bytes"),
            *(str(settings.job_bytes), "--job-keep", str(settings.job_keep)),
        ]
        one_card = {"CUDA_VISIBLE_DEVICES": cards[number % len(cards)]} if cards else {}
        name = "worker" if count == 1 else f"worker {number}"
        workers[path] = Child(name, command, "worker", one_card)
    return workers


def _prepare(home: Path, settings: Settings) -> None:
    """Bring the home in order while nobody else uses it."""
    # Files that ended the worker of an earlier server get another chance.
    for counts in (home / "run").glob("loads-*.json"):
        counts.unlink(missing_ok=True)
    database = settings.database
    repository = Repository(home, database_url=database)
    jobs = SqlStore(catalog_of(home, database))
    try:
        repository.bind()
        jobs.requeue_lost(None)  # there may be fewer workers than there were
        repository.blobs.sweep(repository.used_blobs() | jobs.blobs())
        asyncio.run(scan(repository, settings.models))
    finally:
        repository.close()
        jobs.close()


def _announce(url: str, home: Path, settings: Settings) -> None:
    door = "with a key" if settings.key else "without a key"
    lines = (
        f"nnz {__version__} serves {url} ({door})",
        f"  docs {url}/docs   home {home}",
        "  ready when GET /v2/health/ready answers 200; Ctrl-C stops",
    )
    print("\n".join(lines), flush=True)


@contextlib.contextmanager
def _lock(home: Path) -> Iterator[IO[str]]:
    """Hold the home; a second server on it would corrupt what is in flight."""
    try:
        (home / "run").mkdir(parents=True, exist_ok=True)
        lock = (home / "run" / "lock").open("w")
    except OSError as error:
        raise ServiceError(
            f"cannot write to {home}: {error.strerror}; choose another folder with "
            "--home or NNZ_HOME"
        ) from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(f"another server uses {home}") from None
        yield file


@contextlib.contextmanager
def _listen(settings: Settings) -> Iterator[socket.socket]:
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ServiceError(f"cannot listen on {host}:{port}: {error}") from error
        listener.listen(_BACKLOG)
        yield listener


@contextlib.contextmanager
def _runtime() -> Iterator[Path]:
    """A short private folder: a socket's path may have 107 bytes, and any name."""
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_RUNTIME))  # made with mode 0700
    lock = _hold(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _hold(folder: Path) -> int:
    """Lock a folder for as long as the descriptor is open or this process lives."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _sweep(parent: Path) -> None:
    """Remove what killed servers of this user left: folders that nobody holds."""
    for folder in parent.glob(f"{_RUNTIME}*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            young = time.time() - found.st_mtime < _YOUNG
            if young or found.st_uid != os.geteuid():
                continue  # one that is young may not be held yet
            lock = _hold(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _die_with_parent() -> None:
    """In the forked child: end when the supervisor ends, and take signals again."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
