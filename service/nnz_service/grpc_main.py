"""The gRPC process: one address, the workers behind their pipes.

Started by the supervisor, `python -m nnz_service.grpc_main --address HOST:PORT --worker
PATH`; everything else comes from the settings (NNZ_*).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import closing
from pathlib import Path

import grpc

from nnz_service import logs, telemetry
from nnz_service.database import catalog_of
from nnz_service.dataplane import Admission, Page, connect
from nnz_service.errors import ServiceError
from nnz_service.gateway import Drain, Parts, Turns, Watch, limits_of, open_controls
from nnz_service.gateway.controls import LIVE, lends_memory
from nnz_service.gateway.counts import keep, save
from nnz_service.grpc import Server
from nnz_service.jobs import SqlStore
from nnz_service.keys import AuditLog, Keyring
from nnz_service.metrics import Metrics
from nnz_service.repository import Repository
from nnz_service.settings import Settings

#: Seconds for calls under way after SIGTERM; the supervisor waits a little longer.
_GRACE = 8.0
_BEAT = 1.0  # seconds between signs of life


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="nnz-grpc")
    parser.add_argument("--address", required=True)
    parser.add_argument("--worker", type=Path, required=True, action="append")
    parser.add_argument("--page", type=int)
    parser.add_argument("--row", type=int, default=0)
    options = parser.parse_args()
    settings = Settings()
    lending = lends_memory(settings.host, settings.shared_memory)
    logs.configure(settings.log_level, "grpc")
    home, page, drain = settings.home, Page(options.page), Drain()
    with (
        closing(Repository(home, database_url=settings.database)) as repository,
        closing(SqlStore(catalog_of(home, settings.database))) as jobs,
    ):
        parts = Parts(
            limits_of(settings),
            connect(options.worker, page),
            repository,
            jobs,
            Metrics(home / LIVE / "metrics", "grpc"),
            drain,
            Turns(repository.home / "run" / "turns"),
            open_controls(home, shared_memory=lending),
            Watch(jobs, lambda: drain.begun),
        )
        door = (page, options.row)
        return asyncio.run(_serve(parts, settings, door, options.address))


async def _serve(
    parts: Parts, settings: Settings, door: tuple[Page, int], address: str
) -> int:
    """Serve until a signal; returns the exit code."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    limits = parts.limits
    admission = Admission(limits.max_inflight, limits.max_inflight_bytes, *door)
    home = settings.home.resolve()
    endpoint = settings.otel_endpoint
    tracing = telemetry.open_tracing(endpoint) if endpoint else None
    server = Server(
        parts,
        admission,
        Keyring(settings.key, home),
        _credentials(settings),
        audit=AuditLog(home, settings.audit_bytes),
        access_log=settings.access_log,
        tracing=tracing,
    )
    background = [
        asyncio.create_task(_beat(*door)),
        asyncio.create_task(parts.controls.follow()),
        asyncio.create_task(keep(parts.metrics)),
    ]
    await parts.dataplane.start()
    try:
        await server.start(address)
        await stopped.wait()
        parts.drain.begun = True
        await asyncio.sleep(settings.drain_delay)
        await server.stop(_GRACE)
    except ServiceError as error:
        print(f"nnz: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await parts.dataplane.close()
        await save(parts.metrics)
        if tracing is not None:
            await asyncio.to_thread(tracing.shutdown)
    return 0


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Read certificate and key, which the supervisor has checked."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
    authorities = settings.tls_client_ca
    return grpc.ssl_server_credentials(
        [pair],
        authorities.read_bytes() if authorities else None,
        require_client_auth=authorities is not None,
    )


async def _beat(page: Page, row: int) -> None:
    """Show signs of life."""
    while True:
        page.beat(page.doors[row])
        await asyncio.sleep(_BEAT)


if __name__ == "__main__":
    sys.exit(main())
