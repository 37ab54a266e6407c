"""Several workers behind one `Dataplane`: every one holds every model, as copies do.

A request goes to the worker with the fewest under way; what changes or tells the state
of all goes to all. A matrix is loaded by a worker when a request for it first arrives.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnz_service.dataplane.messages import Reply, Tensors
from nnz_service.errors import WorkerLostError

if TYPE_CHECKING:
    from nnz_service.dataplane import Dataplane

#: Calls that every worker gets.
_ALL = frozenset({"load", "unload", "pin", "wake", "stats"})


class FleetDataplane:
    """A `Dataplane` over several.

    Args:
        members: One a worker, at least two.
    """

    def __init__(self, members: Sequence[Dataplane]) -> None:
        self._members = list(members)
        self._under_way = [0] * len(self._members)
        self._turns = itertools.count()

    @property
    def ready(self) -> bool:
        """Whether any worker is: the others may be on their way back."""
        return any(member.ready for member in self._members)

    @property
    def detail(self) -> str:
        """What each is doing."""
        pairs = enumerate(self._members)
        return "; ".join(f"worker {number}: {one.detail}" for number, one in pairs)

    async def start(self) -> None:
        """See `Dataplane`."""
        await asyncio.gather(*(member.start() for member in self._members))

    async def close(self) -> None:
        """See `Dataplane`."""
        await asyncio.gather(*(member.close() for member in self._members))

    async def call(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the workers must know it too
    ) -> Reply:
        """See `Dataplane`."""
        if kind in _ALL:
            return await self._ask_all(kind, params, timeout)
        number = self._next()
        self._under_way[number] += 1
        try:
            member = self._members[number]
            return await member.call(kind, params, tensors, timeout=timeout)
        finally:
            self._under_way[number] -= 1

    def _next(self) -> int:
        """Return the worker to ask: a ready one if there is any, with the fewest calls
        under way; equals in turn.
        """
        count, turn = len(self._members), next(self._turns)

        def order(number: int) -> tuple[bool, int, int]:
            idle_turn = (number - turn) % count
            return not self._members[number].ready, self._under_way[number], idle_turn

        return min(range(count), key=order)

    async def _ask_all(
        self,
        kind: str,
        params: Mapping[str, Any],
        timeout: float | None,  # noqa: ASYNC109 - as in `call`
    ) -> Reply:
        """Ask everyone; a worker that is being replaced reads the state as it starts.

        Raises:
            ServiceError: What one refused, or that none could be reached.
        """
        calls = (member.call(kind, params, timeout=timeout) for member in self._members)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        replies = [one for one in answers if isinstance(one, Reply)]
        failures = [one for one in answers if isinstance(one, BaseException)]
        grave = [one for one in failures if not isinstance(one, WorkerLostError)]
        if kind == "stats" and replies:  # one that starts does not know the model yet
            return Reply(_added([reply.result for reply in replies]))
        if grave or not replies:
            raise (grave or failures)[0]
        return replies[0]


#: Fields that are no sums: the latest counts.
_LATEST = frozenset({"last_inference", "batch_size", "id"})


def _added(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return statistics of all workers as one: counters of a model add up."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in (row for part in parts for row in part["model_stats"]):
        key = (row["name"], row["version"])
        rows[key] = _joined(rows[key], row) if key in rows else dict(row)
    scheduler = dict(parts[0]["scheduler"])
    for part in parts[1:]:
        scheduler = _sum(scheduler, part["scheduler"])
    processes = [one for part in parts for one in part.get("processes", ())]
    return {
        "model_stats": list(rows.values()),
        "scheduler": scheduler,
        "processes": processes,
        "resident": _resident([part.get("resident", {}) for part in parts]),
        "usage": _used([part.get("usage", {}) for part in parts]),
    }


def _used(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the seconds of each key on all workers."""
    found: dict[str, Any] = {}
    for owner, row in (pair for part in parts for pair in part.items()):
        found[owner] = _sum(found[owner], row) if owner in found else row
    return found


def _resident(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what all workers hold, each with its number; the budget is of each."""
    matrices = [
        {**row, "worker": number}
        for number, part in enumerate(parts)
        for row in part.get("matrices", ())
    ]
    total = sum(part.get("bytes", 0) for part in parts)
    return {"budget": parts[0].get("budget"), "bytes": total, "matrices": matrices}


def _joined(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Add the counters of one model on two workers."""
    sizes = {one["batch_size"]: one for one in a["batch_stats"]}
    for one in b["batch_stats"]:
        size = one["batch_size"]
        sizes[size] = _sum(sizes[size], one) if size in sizes else one
    joined: dict[str, Any] = _sum({**a, "batch_stats": []}, {**b, "batch_stats": []})
    return {**joined, "batch_stats": [sizes[size] for size in sorted(sizes)]}


def _sum(a: Any, b: Any, name: str = "") -> Any:
    """Add numbers in equal structures; texts are those of the first."""
    if isinstance(a, Mapping):
        return {key: _sum(value, b.get(key, value), key) for key, value in a.items()}
    if isinstance(a, list):
        return [_sum(one, other) for one, other in zip(a, b, strict=True)]
    if not isinstance(a, int | float):
        return a
    return max(a, b) if name in _LATEST else a + b
