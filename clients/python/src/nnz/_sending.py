"""How handles reach the server: what a client offers them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Protocol, TypeVar

from nnz._calls import Call

T = TypeVar("T")


class Send(Protocol):
    """Sends a call and reads its answer."""

    def __call__(self, call: Call[T], /) -> T:
        """Do both, with retries."""
        ...


class Follow(Protocol):
    """Follows a stream of events, across connections."""

    def __call__(self, watch: Callable[[str], Call[T]], /) -> Generator[T, None, None]:
        """What each event says; `watch` makes the call from the last event's id."""
        ...


class AsyncSend(Protocol):
    """Sends a call and reads its answer."""

    def __call__(self, call: Call[T], /) -> Awaitable[T]:
        """Do both, with retries."""
        ...


class AsyncFollow(Protocol):
    """Follows a stream of events, across connections."""

    def __call__(self, watch: Callable[[str], Call[T]], /) -> AsyncGenerator[T, None]:
        """What each event says; `watch` makes the call from the last event's id."""
        ...
