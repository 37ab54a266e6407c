from __future__ import annotations

import asyncio

from nnz_service.repository.seats import Seats


class Guests:
    """Who is in, in the order in which they came; each stays until told to go."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats
        self.inside: list[str] = []

    async def come(self, owner: str, name: str) -> asyncio.Task[None]:
        async def stay() -> None:
            async with self._seats.taken(owner):
                self.inside.append(name)
                try:
                    await asyncio.Event().wait()
                finally:
                    self.inside.remove(name)

        task = asyncio.create_task(stay())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task


async def leave(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_nobody_has_them_all() -> None:
    guests = Guests(Seats(2))
    first = await guests.come("ann", "a1")
    second = await guests.come("ann", "a2")
    other = await guests.come("bob", "b1")
    assert guests.inside == ["a1", "b1"]

    await leave(other)
    assert guests.inside == ["a1"]
    await leave(first)
    assert guests.inside == ["a2"]
    await leave(second)


async def test_who_is_not_known_has_them_all() -> None:
    guests = Guests(Seats(2))
    tasks = [await guests.come("", name) for name in ("x", "y", "z")]
    assert guests.inside == ["x", "y"]
    await leave(tasks[0])
    assert guests.inside == ["y", "z"]
    for task in tasks[1:]:
        await leave(task)


async def test_who_waits_in_vain_takes_nothing() -> None:
    """Cancelled as they wait, or in the instant in which they are let in."""
    guests = Guests(Seats(1))
    first = await guests.come("ann", "a")
    tired = await guests.come("bob", "b")
    await leave(tired)
    late = await guests.come("cid", "c")
    first.cancel()
    await asyncio.sleep(0)
    await leave(late)

    last = await guests.come("dan", "d")
    assert guests.inside == ["d"]
    await leave(last)
