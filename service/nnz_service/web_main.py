"""The web process: HTTP on an inherited socket, one worker behind a pipe.

Started by the supervisor, `python -m nnz_service.web_main --fd N --worker PATH`;
everything else comes from the settings (NNZ_*).
"""

from __future__ import annotations

import argparse
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from nnz_service import logs
from nnz_service.dataplane import Admission, Dataplane, FleetDataplane, SocketDataplane
from nnz_service.gateway import Drain, Limits
from nnz_service.jobs import JobStore, SqlStore
from nnz_service.repository import Repository
from nnz_service.settings import Settings
from nnz_service.web import create_app
from nnz_service.web.connection import Connection
from nnz_service.web.guard import guard_of

#: Seconds for requests under way after SIGTERM; the supervisor waits a little longer.
_GRACE = 8
#: Longer than the idle time of usual connection pools, so that the client closes first.
_KEEP_ALIVE = 75


class _Server(uvicorn.Server):
    """Says that it is draining the moment it is told to stop."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal ends at once."""
        self._drain.begun = True
        super().handle_exit(sig, frame)


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="nnz-web")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--worker", type=Path, required=True, action="append")
    options = parser.parse_args()
    # The server takes these over, and raises again what it got once it has drained.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    settings = Settings()
    logs.configure(settings.log_level, "web")
    with (
        closing(Repository(settings.home)) as repository,
        closing(SqlStore(settings.home / "catalog.sqlite")) as jobs,
        socket.socket(fileno=options.fd) as listener,
    ):
        _serve(settings, _dataplane(options.worker), repository, jobs, listener)
    return 0


def _dataplane(workers: Sequence[Path]) -> Dataplane:
    members = [SocketDataplane(path) for path in workers]
    return members[0] if len(members) == 1 else FleetDataplane(members)


def _serve(
    settings: Settings,
    dataplane: Dataplane,
    repository: Repository,
    jobs: JobStore,
    listener: socket.socket,
) -> None:
    drain = Drain()
    limits = limits_of(settings)
    app = create_app(
        limits=limits,
        dataplane=dataplane,
        repository=repository,
        jobs=jobs,
        admission=Admission(limits.max_inflight, limits.max_inflight_bytes),
        guard=guard_of(settings),
        drain=drain,
    )
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        ssl_ca_certs=settings.tls_client_ca,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )
    _Server(config, drain).run(sockets=[listener])


def _leave(*_: object) -> NoReturn:
    raise SystemExit(0)


def limits_of(settings: Settings) -> Limits:
    """Take the bounds on requests out of the settings."""
    return Limits(
        max_body=settings.max_body,
        max_json=settings.max_json,
        max_upload=settings.max_upload,
        request_timeout=settings.request_timeout,
        max_inflight=settings.max_inflight,
        max_inflight_bytes=settings.max_inflight_bytes,
    )


if __name__ == "__main__":
    sys.exit(main())
