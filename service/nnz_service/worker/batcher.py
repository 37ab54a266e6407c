"""Which of the waiting requests run next, together. Pure: no clock, no thread.

There is no timer: what waited while the device was busy goes as soon as it is free. A
batch ends by cost and bytes rather than by count, so that ten small products join and
two huge ones do not. Where every number of rows needs a plan of its own, batches grow
by doubling, so that few plans serve all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar


class Waiting(Protocol):
    """What the batcher looks at; see `tickets.Ticket`."""

    @property
    def key(self) -> Hashable | None:
        """What requests must share to join; None runs alone."""
        ...

    @property
    def rows(self) -> int:
        """Rows along the batch axis."""
        ...

    @property
    def max_rows(self) -> int:
        """Rows that one run may have."""
        ...

    @property
    def plans(self) -> bool:
        """Whether each number of rows needs a plan of its own."""
        ...

    @property
    def cost(self) -> int:
        """Predicted nanoseconds on the device."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of its inputs."""
        ...


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one batch; its first request may pass all but the rows alone.

    Args:
        cost: Nanoseconds on the device; a later request waits about that long.
        nbytes: Bytes of inputs, which are copied once to join them.
        scan: Requests looked at, so that forming a batch takes bounded time.
    """

    cost: int = 50_000_000
    nbytes: int = 256 << 20
    scan: int = 1024


def cut(queue: Iterable[W], limits: Limits) -> list[W]:
    """Choose the next batch: the oldest request and those that can join it, in order.

    Args:
        queue: Waiting requests, oldest first; not changed.
        limits: When to stop.

    Returns:
        The chosen ones, empty only when nobody waits.
    """
    waiting = iter(queue)
    head = next(waiting, None)
    if head is None:
        return []
    batch = [head]
    if head.key is None:
        return batch
    rows, cost, nbytes = head.rows, head.cost, head.nbytes
    for other in islice(waiting, limits.scan):
        if other.key != head.key:
            continue
        rows, cost, nbytes = rows + other.rows, cost + other.cost, nbytes + other.nbytes
        if rows > head.max_rows or cost > limits.cost or nbytes > limits.nbytes:
            break  # taking a later, smaller one would overtake this one
        batch.append(other)
    return _doubled(batch) if head.plans else batch


def _doubled(batch: list[W]) -> list[W]:
    """The longest start of a batch with 1, 2, 4, ... times the rows of its first."""
    unit, rows, length = max(batch[0].rows, 1), 0, 1
    for count, each in enumerate(batch, start=1):
        rows += each.rows
        times, rest = divmod(rows, unit)
        if not rest and times.bit_count() == 1:
            length = count
    return batch[:length]
