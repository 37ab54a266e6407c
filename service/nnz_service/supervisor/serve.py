"""Bring a server up, and down again."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import orjson
from sqlalchemy.exc import SQLAlchemyError

from nnz_service import __version__, keys, logs, telemetry
from nnz_service.database import catalog_of, why
from nnz_service.dataplane import Page
from nnz_service.errors import ServiceError
from nnz_service.gateway.controls import forget_controls
from nnz_service.hardware import compiler_environment
from nnz_service.jobs import SqlStore
from nnz_service.repository import Repository
from nnz_service.repository.directory import scan
from nnz_service.settings import Settings
from nnz_service.supervisor.children import SIGNALS, Supervisor
from nnz_service.supervisor.commands import doors_of, workers_of
from nnz_service.supervisor.places import (
    allow_descriptors,
    hold_grpc,
    listen,
    lock,
    runtime,
)
from nnz_service.tls import check_tls


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; only from the main thread.

    Returns:
        The exit code: 0 when told to stop, 1 when it cannot start or go on.
    """
    logs.configure(settings.log_level, "supervisor")
    allow_descriptors()
    try:
        telemetry.check_endpoint(settings.otel_endpoint)
        home = settings.home.resolve()
        guarded = _check_door(settings, home)
        with (
            lock(home),
            listen(settings) as listener,
            hold_grpc(settings) as grpc,
            runtime() as folder,
        ):
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
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
    workers = workers_of(settings, home, pipe, page)
    doors = doors_of(settings, listener.fileno(), grpc, list(workers), page)
    return Supervisor(
        [*workers.values(), *doors],
        environment,
        pipe.parent,
        settings.hang_timeout,
        settings.drain_delay,
    )


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
        repository.bind()
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


def _url(settings: Settings, listener: socket.socket) -> str:
    scheme = "http" if settings.tls_cert is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{listener.getsockname()[1]}"
