"""So many at once, and none of them for one owner alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator


class Seats:
    """Lets few in at a time, in the order in which they come; of one event loop.

    A known owner has at most all seats but one: work that takes minutes would keep
    everybody else out. Who has no key is not known, and has them all.

    Args:
        count: Seats.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._most = max(1, count - 1)
        self._taken: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def taken(self, owner: str) -> AsyncIterator[None]:
        """Wait for a seat, and have it in the block."""
        mine = owner, asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        self._seat()
        try:
            await mine[1]
            yield
        finally:
            if mine in self._waiting:  # it waited in vain
                self._waiting.remove(mine)
            else:
                self._free += 1
                self._taken[owner] -= 1
                self._seat()

    def _seat(self) -> None:
        for one in list(self._waiting):
            owner, came = one
            if self._free and not (owner and self._taken[owner] >= self._most):
                self._waiting.remove(one)
                self._free -= 1
                self._taken[owner] += 1
                if not came.done():  # else it was cancelled, and gives the seat back
                    came.set_result(None)
        self._taken += Counter()  # drops who has none
