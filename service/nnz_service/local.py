"""The whole server inside this process: for scripts, notebooks and tests.

The same application and the same worker as `nnz serve` has, without sockets: the
worker's host is called directly. The SDK finds `open_local` by its entry point.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from nnz_service import logs
from nnz_service.database import catalog_of
from nnz_service.dataplane import Admission, InlineDataplane, Page
from nnz_service.errors import UnavailableError
from nnz_service.gateway import Limits
from nnz_service.jobs import Retention, SqlStore
from nnz_service.repository import Repository
from nnz_service.web import create_app
from nnz_service.worker import Host, Sweeper, Toolbox

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: Nobody else is there to be protected from: bodies as big as memory holds.
_LIMITS = Limits(max_body=64 << 30, max_upload=64 << 30, max_inflight_bytes=64 << 30)
_START_SECONDS = 60.0
_LAST_WORDS = frozenset(
    {
        "lifespan.startup.failed",
        "lifespan.shutdown.failed",
        "lifespan.shutdown.complete",
    }
)


def open_local(
    *,
    home: Path | str | None = None,
    threads: int | None = None,
    database_url: str | None = None,
) -> LocalApp:
    """Build an ASGI application with a worker inside; its lifespan starts and ends it.

    Kernels are compiled when they are first used rather than at the start. The threads
    of numpy's BLAS stay as the program has them; where jobs are to run beside it, start
    Python with OPENBLAS_NUM_THREADS=1, as `nnz serve` does for its worker.

    Args:
        home: Where models, matrices and jobs stay; a temporary folder by default, which
            goes when the application ends.
        threads: Of the kernels; None takes every core.
        database_url: Where models, matrices and jobs are recorded; None: in the home.
    """
    logs.quieten()
    return LocalApp(None if home is None else Path(home), threads, database_url)


class LocalApp:
    """The application, which owns its home, its stores and its worker."""

    def __init__(
        self, home: Path | None, threads: int | None, database_url: str | None = None
    ) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if home is None:
            # It removes itself even when the application never gets to its end.
            self._temporary = tempfile.TemporaryDirectory(
                prefix="nnz-", ignore_cleanup_errors=True
            )
            home = Path(self._temporary.name)
        self._home = home
        self._repository = Repository(self._home, database_url=database_url)
        self._jobs = SqlStore(catalog_of(self._home, database_url))
        self._sweeper = Sweeper(self._repository, self._jobs, Retention())
        toolbox = Toolbox(threads=threads, compile_first=False)
        page = Page()
        self._host = Host(self._repository, self._jobs, toolbox, page=page)
        limits = _LIMITS.max_inflight, _LIMITS.max_inflight_bytes
        self._app = create_app(
            limits=_LIMITS,
            dataplane=InlineDataplane(self._host),
            repository=self._repository,
            jobs=self._jobs,
            admission=Admission(*limits, page),
        )

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        """Speak ASGI 3; the start is complete when the worker is ready."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def relay(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await asyncio.to_thread(self._wait)
            elif message["type"] in _LAST_WORDS:
                # Afterwards a server may end the process at any moment.
                await asyncio.to_thread(self._clean_up)
            await send(message)

        await self._app(scope, receive, relay)

    def _wait(self) -> None:
        self._sweeper.start()
        if not self._host.wait(_START_SECONDS):
            raise UnavailableError(f"the worker did not start: {self._host.detail}")

    def _clean_up(self) -> None:
        self._sweeper.close()
        self._repository.close()
        self._jobs.close()
        if self._temporary is not None:
            self._temporary.cleanup()
