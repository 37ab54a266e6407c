"""`nnz serve`: holds the ports, keeps the worker and the front doors alive.

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
import math
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

from nnz_service import __version__, keys, logs, telemetry
from nnz_service.database import catalog_of, why
from nnz_service.dataplane import Page
from nnz_service.errors import ServiceError
from nnz_service.gateway.controls import forget_controls
from nnz_service.hardware import compiler_environment, gpus
from nnz_service.jobs import SqlStore
from nnz_service.repository import Repository
from nnz_service.repository.directory import scan
from nnz_service.settings import Settings
from nnz_service.tls import check_tls

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_BACKLOG = 1024
_GRACE = {"web": 10.0, "grpc": 10.0, "worker": 5.0}  # seconds from SIGTERM to SIGKILL
_BACKOFF = (0.2, 10.0)  # seconds before a restart: first, longest
_HEALTHY = 30.0  # seconds of life after which a process counts as started
_NO_DEVICE = 78  # exit code of a worker that cannot have the device it was told to use
_GIVE_UP = 8  # ends in a row without that, and the server ends
_LOOK = 1.0  # seconds between looks at the signs of life
_RUNTIME = "nnz-run-"  # how the names of runtime folders begin
_YOUNG = 60.0  # seconds
_PR_SET_PDEATHSIG = 1
_PYTHON = (sys.executable, "-m")
_LIBC = ctypes.CDLL(None)  # loaded here: a forked child may not load anything


@dataclass(slots=True)
class Child:
    """One process that is started again when it ends."""

    name: str
    command: list[str]
    kind: str = "worker"
    environment: dict[str, str] = field(default_factory=dict)
    fds: tuple[int, ...] = ()
    row: Any = None  # of the shared page; its beat is that of the process
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    due: float = 0.0  # when it is started again

    def start(self, environment: dict[str, str]) -> None:
        """Start it in a session of its own: Ctrl-C reaches the supervisor alone."""
        self.started = time.monotonic()
        if self.row is not None:
            self.row["beat"] = 0.0
        self.process = subprocess.Popen(  # noqa: S603 - our own modules
            self.command,
            pass_fds=self.fds,
            env=environment | self.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )

    def hangs(self, patience: float) -> bool:
        """Whether a running process has shown no sign of life for too long."""
        if self.process is None or self.row is None:
            return False
        last = float(self.row["beat"]) or self.started
        return time.monotonic() - last > patience

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it now, and wait until it has."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

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
    hang_timeout: float = 120.0
    drain_delay: float = 0.0
    log: Any = field(default_factory=logs.logger)

    def run(self) -> int:
        """Keep the children alive until a signal; returns the exit code."""
        for child in self.children:
            child.start(self.environment)
        while True:
            number = signal.sigtimedwait(_SIGNALS, self._pause())
            if number is not None and number.si_signo != signal.SIGCHLD:
                return 0
            self._end_hanging()
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
        """End the children: first who takes requests, so that they still are answered.

        A second signal ends all at once.
        """
        doors = [child for child in self.children if child.kind != "worker"]
        workers = [child for child in self.children if child.kind == "worker"]
        hurry = self._end(doors, self.drain_delay, hurry=False)
        self._end(workers, 0.0, hurry=hurry)

    def _end(self, children: list[Child], more: float, *, hurry: bool) -> bool:
        """SIGTERM, then SIGKILL when it lasts; returns whether there is a hurry."""
        running = [child for child in children if child.process is not None]
        for child in running:
            child.signal(signal.SIGTERM)
        grace = max((_GRACE[child.kind] for child in running), default=0.0)
        until = time.monotonic() + grace + more
        while not hurry and any(child.alive for child in running):
            left = until - time.monotonic()
            number = signal.sigtimedwait(_SIGNALS, max(left, 0))
            hurry = number is not None and number.si_signo != signal.SIGCHLD
            if left <= 0:
                break
        for child in running:
            if child.alive and not hurry:
                self.log.warning("killed, it did not end", child=child.name)
            child.kill()
        return hurry

    def _end_hanging(self) -> None:
        for child in self.children:
            if child.hangs(self.hang_timeout):
                self.log.error("no sign of life, it is replaced", child=child.name)
                child.signal(signal.SIGKILL)

    def _pause(self) -> float:
        dues = [child.due for child in self.children if child.process is None]
        next_due = min(dues, default=math.inf) - time.monotonic()
        return min(max(0.0, next_due), _LOOK)

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
        telemetry.check_endpoint(settings.otel_endpoint)
        home = settings.home.resolve()
        guarded = _check_door(settings, home)
        with (
            _lock(home),
            _listen(settings) as listener,
            _hold_grpc(settings) as grpc,
            _runtime() as folder,
        ):
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            try:
                return _serve(settings, home, listener, grpc, folder, guarded=guarded)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except (ServiceError, OSError, SQLAlchemyError) as error:
        print(f"nnz: {why(error)}", file=sys.stderr)
        return 1


def _check_door(settings: Settings, home: Path) -> bool:
    """Refuse a door that is open, or cannot be; returns whether keys are asked for.

    Raises:
        ServiceError: saying what to set.
    """
    check_tls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    keys.KeyFile(home).read()  # a running server would go on without it
    keyring = keys.Keyring(settings.key, home)
    insecure = settings.insecure
    keys.check_bind(settings.host, guarded=keyring.usable, insecure=insecure)
    required = keyring.required
    keys.check_origins(settings.origins, guarded=required, insecure=insecure)
    return required


def _serve(
    settings: Settings,
    home: Path,
    listener: socket.socket,
    grpc: str | None,
    folder: Path,
    *,
    guarded: bool,
) -> int:
    _prepare(home, settings)
    url = _url(settings, listener)
    supervisor = _supervisor(settings, home, listener, grpc, folder / "worker")
    state = home / "run" / "server.json"
    _announce(url, grpc, home, guarded=guarded)
    found = {"url": url, "pid": os.getpid()} | ({"grpc": grpc} if grpc else {})
    draft = state.with_suffix(".new")
    draft.write_bytes(orjson.dumps(found))
    draft.replace(state)  # who looks sees all of it or nothing
    try:
        return supervisor.run()
    finally:
        state.unlink(missing_ok=True)
        listener.close()  # the children's are open until they take no more
        supervisor.stop()


def _supervisor(
    settings: Settings,
    home: Path,
    listener: socket.socket,
    grpc: str | None,
    pipe: Path,
) -> Supervisor:
    environment = os.environ | settings.to_environment() | {"NNZ_HOME": str(home)}
    environment.setdefault("NUMBA_CACHE_DIR", str(home / "cache" / "numba"))
    environment |= compiler_environment(settings.cpu_target)
    # The kernels have threads of their own; those of BLAS beside them only fight for
    # the cores (a conjugate gradients step took nine times as long on a busy machine).
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    page = Page()
    workers = _workers(settings, home, pipe, page)
    doors = _doors(settings, listener.fileno(), grpc, list(workers), page)
    return Supervisor(
        [*workers.values(), *doors],
        environment,
        pipe.parent,
        settings.hang_timeout,
        settings.drain_delay,
    )


def _workers(
    settings: Settings, home: Path, pipe: Path, page: Page
) -> dict[Path, Child]:
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
            *(*_PYTHON, "nnz_service.worker_main", "--home", str(home)),
            *("--socket", str(path), "--number", str(number)),
            *("--page", str(page.fd), "--hang", str(settings.hang_timeout)),
            *("--log-level", settings.log_level, "--device", settings.device),
            *("--precision", settings.precision, *threads),
            *("--job-ttl", str(settings.job_ttl), "--job-bytes"),
            *(str(settings.job_bytes), "--job-keep", str(settings.job_keep)),
        ]
        one_card = {"CUDA_VISIBLE_DEVICES": cards[number % len(cards)]} if cards else {}
        name = "worker" if count == 1 else f"worker {number}"
        row = page.workers[number]
        workers[path] = Child(name, command, "worker", one_card, (page.fd,), row)
    return workers


def _doors(
    settings: Settings, fd: int, grpc: str | None, pipes: list[Path], page: Page
) -> list[Child]:
    """Return the processes that take requests; those of HTTP share one socket."""
    sockets = [word for path in pipes for word in ("--worker", str(path))]
    doors = []
    for number in range(settings.web):
        command = [
            *(*_PYTHON, "nnz_service.web_main", "--fd", str(fd), *sockets),
            *("--page", str(page.fd), "--row", str(number)),
        ]
        name = "web" if settings.web == 1 else f"web {number}"
        row = page.doors[number]
        doors.append(Child(name, command, "web", {}, (fd, page.fd), row))
    if grpc is not None:
        command = [
            *(*_PYTHON, "nnz_service.grpc_main", "--address", grpc, *sockets),
            *("--page", str(page.fd), "--row", str(settings.web)),
        ]
        row = page.doors[settings.web]
        doors.append(Child("grpc", command, "grpc", {}, (page.fd,), row))
    return doors


def _prepare(home: Path, settings: Settings) -> None:
    """Bring the home in order while nobody else uses it."""
    forget_controls(home)
    # Files that ended the worker of an earlier server get another chance.
    for counts in (home / "run").glob("loads-*.json"):
        counts.unlink(missing_ok=True)
    database = settings.database
    repository = Repository(home, database_url=database)
    jobs = SqlStore(catalog_of(home, database))
    try:
        jobs.requeue_lost(None)  # there may be fewer workers than there were
        repository.blobs.sweep(repository.used_blobs() | jobs.blobs())
        asyncio.run(scan(repository, settings.models))
    finally:
        repository.close()
        jobs.close()


def _announce(url: str, grpc: str | None, home: Path, *, guarded: bool) -> None:
    door = "with a key" if guarded else "without a key"
    lines = (
        f"nnz {__version__} serves {url} ({door})",
        *([f"  gRPC {grpc}"] if grpc else []),
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
    with _bound(settings.host, settings.port) as listener:
        listener.listen(_BACKLOG)
        yield listener


@contextlib.contextmanager
def _hold_grpc(settings: Settings) -> Iterator[str | None]:
    """Hold the port of gRPC, so that its process finds it free each time it starts.

    gRPC takes no socket from others; but who binds a port without listening shares it
    with one that listens, as long as both allow addresses to be used again.
    """
    if settings.grpc_port is None:
        yield None
        return
    with _bound(settings.host, settings.grpc_port) as held:
        host, port = held.getsockname()[:2]
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ServiceError(f"cannot listen on {host}:{port}: {error}") from error
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


def _url(settings: Settings, listener: socket.socket) -> str:
    scheme = "http" if settings.tls_cert is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{listener.getsockname()[1]}"


def _die_with_parent() -> None:
    """In the forked child: end when the supervisor ends, and take signals again."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
