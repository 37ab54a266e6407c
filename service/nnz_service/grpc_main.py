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

from nnz_service import logs
from nnz_service.dataplane import Admission, connect
from nnz_service.errors import ServiceError
from nnz_service.gateway import Drain, Parts, Turns, limits_of
from nnz_service.grpc import Server
from nnz_service.jobs import SqlStore
from nnz_service.metrics import Metrics
from nnz_service.repository import Repository
from nnz_service.settings import Settings

#: Seconds for calls under way after SIGTERM; the supervisor waits a little longer.
_GRACE = 8.0


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="nnz-grpc")
    parser.add_argument("--address", required=True)
    parser.add_argument("--worker", type=Path, required=True, action="append")
    options = parser.parse_args()
    settings = Settings()
    logs.configure(settings.log_level, "grpc")
    with (
        closing(Repository(settings.home)) as repository,
        closing(SqlStore(settings.home / "catalog.sqlite")) as jobs,
    ):
        parts = Parts(
            limits_of(settings),
            connect(options.worker),
            repository,
            jobs,
            Metrics(),
            Drain(),
            Turns(repository.home / "run" / "turns"),
        )
        return asyncio.run(_serve(parts, settings.key, options.address))


async def _serve(parts: Parts, key: str | None, address: str) -> int:
    """Serve until a signal; returns the exit code."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    limits = parts.limits
    admission = Admission(limits.max_inflight, limits.max_inflight_bytes)
    server = Server(parts, admission, key)
    await parts.dataplane.start()
    try:
        await server.start(address)
        await stopped.wait()
        await server.stop(_GRACE)
    except ServiceError as error:
        print(f"nnz: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        await parts.dataplane.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
