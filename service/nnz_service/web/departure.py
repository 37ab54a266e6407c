"""When the client of one request leaves, the work for it is cancelled at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect


class Departure:
    """Set by the connection; cancels the one task that asked for it.

    Waiting for `http.disconnect` would take a task of its own for every request.
    """

    def __init__(self) -> None:
        self._gone = False
        self._task: asyncio.Task[object] | None = None

    def leave(self) -> None:
        """Say that the client has left."""
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    @contextmanager
    def cancels(self) -> Iterator[None]:
        """Break off what the current task does inside when the client leaves.

        Raises:
            ClientDisconnect: It has left.
        """
        if self._gone:
            raise ClientDisconnect
        self._task = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if not self._gone or self._task is None:
                raise
            self._task.uncancel()
            raise ClientDisconnect from None
        finally:
            self._task = None
