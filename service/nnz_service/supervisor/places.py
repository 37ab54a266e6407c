"""What a server holds while it runs: its home, its ports, a folder for sockets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nnz_service.errors import ServiceError
from nnz_service.scratch import hold
from nnz_service.settings import Settings

_BACKLOG = 1024
_RUNTIME = "nnz-run-"  # how the names of runtime folders begin
_YOUNG = 60.0  # seconds
_DESCRIPTORS = 1 << 16


@contextlib.contextmanager
def lock(home: Path) -> Iterator[IO[str]]:
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
def listen(settings: Settings) -> Iterator[socket.socket]:
    """The socket of HTTP, listening, which web processes inherit."""
    with _bound(settings.host, settings.port) as listener:
        listener.listen(_BACKLOG)
        yield listener


@contextlib.contextmanager
def hold_grpc(settings: Settings) -> Iterator[str | None]:
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
def runtime() -> Iterator[Path]:
    """A short private folder: a socket's path may have 107 bytes, and any name."""
    sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_RUNTIME))  # made with mode 0700
    lock = hold(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def allow_descriptors() -> None:
    """Let this process and its children have as many files open as they ever may.

    A request can hold four, and the usual bound of 1024 is there for old programs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def sweep(parent: Path) -> None:
    """Remove what killed servers of this user left: folders that nobody holds."""
    for folder in parent.glob(f"{_RUNTIME}*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            young = time.time() - found.st_mtime < _YOUNG
            if young or found.st_uid != os.geteuid():
                continue  # one that is young may not be held yet
            lock = hold(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
