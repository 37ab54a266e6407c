"""One request as its connection sees it: what came of it, whether anybody waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

from starlette.requests import ClientDisconnect
from starlette.types import Scope

#: Where a request finds it in its state.
EXCHANGE = "exchange"
#: Whoever collects a body hears of it after so many bytes or seconds, for its bounds.
_TELL_BYTES, _TELL_SECONDS = 1 << 20, 1.0


class Exchange:
    """Kept by the connection, which finds more out than ASGI can say.

    As a context manager it breaks off what is done inside when the client leaves;
    waiting for `http.disconnect` would take a task of its own for every request.

    Attributes:
        received: Whether the whole body has arrived, so that reading it never waits.
        collected: Bytes of the body that went to who collects it.
        abort: Cuts the connection, with what it still has to send.
    """

    def __init__(self, abort: Callable[[], None]) -> None:
        self.abort = abort
        self.received = False
        self.collected = 0
        self._put: Callable[[bytes], None] | None = None
        self._fault: OSError | None = None
        self._told = 0, time.monotonic()
        self._gone = False
        self._task: asyncio.Task[object] | None = None

    def collect(self, put: Callable[[bytes], None]) -> None:
        """Hand over the rest of the body as it arrives, without messages for each part.

        Args:
            put: Takes a part; an OSError of it is raised by `check`.
        """
        self._put = put

    def take(self, part: bytes) -> bool | None:
        """Pass a part of the body on to who collects it.

        Returns:
            None when nobody does; else whether its reader should hear of it now.
        """
        if self._put is None:
            return None
        self.collected += len(part)
        if self._fault is None:
            try:
                self._put(part)
            except OSError as fault:  # raised by `check`, where somebody answers it
                self._fault = fault
        nbytes, moment = self._told
        if (
            self._fault is None
            and self.collected - nbytes < _TELL_BYTES
            and time.monotonic() - moment < _TELL_SECONDS
        ):
            return False
        self._told = self.collected, time.monotonic()
        return True

    def check(self) -> None:
        """Raise the OSError of a part that could not be handed over, if one was."""
        if self._fault is not None:
            raise self._fault

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


def exchange_of(scope: Scope) -> Exchange | None:
    """Return what the connection keeps of a request; None where it keeps nothing."""
    found: Exchange | None = scope["state"].get(EXCHANGE)
    return found
