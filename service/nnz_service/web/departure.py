"""When the client of one request leaves, the work for it is cancelled at once."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.requests import ClientDisconnect


class Departure:
    """Set by the connection; as a context manager it breaks off what is done inside.

    Waiting for `http.disconnect` would take a task of its own for every request.

    Attributes:
        received: Whether the whole body has arrived, so that reading it never waits.
    """

    def __init__(self) -> None:
        self.received = False
        self._gone = False
        self._task: asyncio.Task[object] | None = None

    def leave(self) -> None:
        """Say that the client has left."""
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> None:
        if self._gone:
            raise ClientDisconnect
        self._task = asyncio.current_task()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._gone and task is not None and kind is asyncio.CancelledError:
            task.uncancel()
            raise ClientDisconnect from None
