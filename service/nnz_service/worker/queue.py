"""Who waits for the device, in which order, and how many may. No clock, no thread.

Requests are ranked by a time, in nanoseconds. It is that of their arrival, moved back
by a fixed handicap for each level of priority, so that a lower level waits long but
not for ever. A caller who sends more than others ranks behind the work that they asked
for before (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996), so that one
flood delays its own sender.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nnz_service.errors import OverloadedError
from nnz_service.worker.tickets import Ticket

#: Levels of priority: 1 goes first; 0 is a request that does not say.
HIGHEST, USUAL, LOWEST = 1, 5, 9
#: What a level is worth: so much later may a request of the level above arrive.
HANDICAP = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait.

    Args:
        count: Requests; a last fuse, for the front doors admit far fewer.
        seconds: Predicted seconds of work.
    """

    count: int = 4096
    seconds: float = 60.0


class Queue:
    """Waiting tickets by rank; not thread-safe.

    Args:
        bounds: When it is full.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._tickets: list[Ticket] = []
        self._clocks: dict[str, int] = {}  # when each caller's work would be done
        self.cost = 0  # predicted nanoseconds of all that waits

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets)

    def add(self, ticket: Ticket, ahead: int = 0) -> None:
        """Let a ticket wait.

        Args:
            ticket: Its `rank` is set.
            ahead: Nanoseconds that the device is still busy with what it does now.

        Raises:
            OverloadedError: It is full, or the ticket could not be in time; with the
                seconds after which it may be tried again.
        """
        wait = self.cost + ahead
        if not ticket.begun:
            self._check_room(ticket, wait)
        left = ticket.nanoseconds_left
        if 0 < left < wait and self._before(ticket) + ahead > left:
            raise OverloadedError(
                f"what goes first takes {wait / 1e9:.1f} s, longer than the "
                f"{left / 1e9:.1f} s until the deadline",
                retry_after=wait / 1e9,
            )
        self._rank(ticket)
        bisect.insort(self._tickets, ticket, key=_rank_of)
        self.cost += ticket.cost

    def _check_room(self, ticket: Ticket, wait: int) -> None:
        if len(self._tickets) >= self._bounds.count:
            full = f"{len(self._tickets)} requests wait already"
            raise OverloadedError(full, retry_after=wait / 1e9)
        if wait and wait + ticket.cost > self._bounds.seconds * 1e9:
            raise OverloadedError(
                f"work of {wait / 1e9:.1f} s waits already, {ticket.cost / 1e9:.1f} s "
                f"more pass the {self._bounds.seconds:g} s that may wait",
                retry_after=wait / 1e9,
            )

    def take(self, batch: Iterable[Ticket]) -> None:
        """Let those go that run now."""
        self._remove(set(map(id, batch)))

    def drop(self, now: float) -> list[Ticket]:
        """Let those go that nobody waits for; returns those whose time was over.

        Args:
            now: `time.monotonic()`.
        """
        late = [one for one in self._tickets if (one.deadline or math.inf) <= now]
        left = [one for one in self._tickets if one.future.cancelled()]
        for one in {*late, *left}:  # its caller did not have what it cost
            self._clocks[one.order.owner] -= one.cost
        self._remove({id(one) for one in (*late, *left)})
        return late

    def clear(self) -> list[Ticket]:
        """Let all go; returns them."""
        waiting = self._tickets
        self._remove(set(map(id, waiting)))
        return waiting

    def _remove(self, gone: set[int]) -> None:
        if gone:
            self._tickets = [one for one in self._tickets if id(one) not in gone]
            self.cost = sum(one.cost for one in self._tickets)
        if not self._tickets:
            self._clocks.clear()

    def _rank(self, ticket: Ticket) -> None:
        begin = max(ticket.arrived, self._clocks.get(ticket.order.owner, 0))
        self._clocks[ticket.order.owner] = begin + ticket.cost
        ticket.rank = self._moved(ticket, begin)

    def _before(self, ticket: Ticket) -> int:
        """Predicted nanoseconds of what would go before a ticket."""
        begin = max(ticket.arrived, self._clocks.get(ticket.order.owner, 0))
        rank = self._moved(ticket, begin)
        return sum(one.cost for one in self._tickets if one.rank <= rank)

    def _moved(self, ticket: Ticket, begin: int) -> int:
        level = min(ticket.order.priority or USUAL, LOWEST)
        return begin + (level - HIGHEST) * HANDICAP


def _rank_of(ticket: Ticket) -> int:
    return ticket.rank
