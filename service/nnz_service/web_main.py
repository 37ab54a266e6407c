"""The web process: HTTP on an inherited socket, one worker behind a pipe.

Started by the supervisor, `python -m nnz_service.web_main --fd N --worker PATH`;
everything else comes from the settings (NNZ_*).
"""

from __future__ import annotations

import argparse
import functools
import math
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from nnz_service import logs, telemetry
from nnz_service.database import catalog_of
from nnz_service.dataplane import Admission, Dataplane, Page, connect
from nnz_service.gateway import Drain, Limits, limits_of, open_controls
from nnz_service.gateway.controls import LIVE, lends_memory
from nnz_service.jobs import JobStore, SqlStore
from nnz_service.metrics import Metrics
from nnz_service.repository import Repository
from nnz_service.settings import Settings
from nnz_service.web import create_app
from nnz_service.web.connection import Connection
from nnz_service.web.guard import guard_of

#: Seconds for requests under way after SIGTERM; the supervisor waits a little longer.
_GRACE = 8
#: Longer than the idle time of usual connection pools, so that the client closes first.
_KEEP_ALIVE = 75
#: The loop takes one connection a round from each socket that listens. A busy round has
#: tens of requests, so that with one socket a crowd would wait a second for its turn.
_EARS = 15


class _Server(uvicorn.Server):
    """Shows signs of life, and says that it drains before it stops to listen.

    Args:
        config: Of uvicorn.
        drain: What the routes read.
        delay: Seconds of serving on after the first signal.
        beat: Called ten times a second.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        delay: float,
        beat: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._delay = delay
        self._beat = beat
        self._until = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal ends at once."""
        if self._drain.begun or not self._delay:
            super().handle_exit(sig, frame)
        self._drain.begun = True
        self._until = time.monotonic() + self._delay

    async def on_tick(self, counter: int) -> bool:
        """See `uvicorn.Server`; stops when the time to drain is over."""
        self._beat()
        return await super().on_tick(counter) or time.monotonic() > self._until


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="nnz-web")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--worker", type=Path, required=True, action="append")
    parser.add_argument("--page", type=int)
    parser.add_argument("--row", type=int, default=0)
    options = parser.parse_args()
    # The server takes these over, and raises again what it got once it has drained.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    settings = Settings()
    logs.configure(settings.log_level, "web")
    home = settings.home
    with (
        closing(Repository(home, database_url=settings.database)) as repository,
        closing(SqlStore(catalog_of(home, settings.database))) as jobs,
        socket.socket(fileno=options.fd) as listener,
    ):
        limits = replace(limits_of(settings), devices=len(options.worker))
        page = Page(options.page)
        _serve(
            settings,
            limits,
            connect(options.worker, page),
            repository,
            jobs,
            listener,
            page,
            options.row,
        )
    return 0


def _serve(
    settings: Settings,
    limits: Limits,
    dataplane: Dataplane,
    repository: Repository,
    jobs: JobStore,
    listener: socket.socket,
    page: Page,
    row: int,
) -> None:
    drain, endpoint = Drain(), settings.otel_endpoint
    lending = lends_memory(settings.host, settings.shared_memory)
    app = create_app(
        limits=limits,
        dataplane=dataplane,
        repository=repository,
        jobs=jobs,
        admission=Admission(limits.max_inflight, limits.max_inflight_bytes, page, row),
        guard=guard_of(settings),
        drain=drain,
        controls=open_controls(
            settings.home,
            shared_memory=lending,
        ),
        metrics=Metrics(settings.home / LIVE / "metrics", restarts=page.restarts),
        tracing=telemetry.open_tracing(endpoint) if endpoint else None,
        access_log=settings.access_log,
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
    beat = functools.partial(page.beat, page.doors[row])
    ears = [listener.dup() for _ in range(_EARS)]
    _Server(config, drain, settings.drain_delay, beat).run(sockets=[listener, *ears])


def _leave(*_: object) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
