"""Calls that are asked again of a successor, and requests that end every worker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from nnz_service.dataplane import FleetDataplane, Page, Reply, SteadyDataplane
from nnz_service.dataplane import steady as module
from nnz_service.errors import DeadlyRequestError, WorkerLostError

X = {"x": np.ones(3)}


class Mortal:
    """A worker that ends so many times while it computes, or while others wait."""

    detail = "at work"

    def __init__(self, page: Page, deaths: int, *, computing: bool = True) -> None:
        self.ready = True
        self.deaths = deaths
        self.asked: list[dict[str, Any]] = []
        self._page = page
        self._computing = computing

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def call(
        self, kind: str, params: Mapping[str, Any], *_: object, **__: object
    ) -> Reply:
        self.asked.append(dict(params))
        self._page.mark(0, [params.get("token", 0)] if self._computing else [])
        if not self.deaths:
            self._page.mark(0, [])
            return Reply({"kind": kind})
        self.deaths -= 1
        self.ready = False
        asyncio.get_running_loop().call_later(0.05, setattr, self, "ready", True)
        raise WorkerLostError("the worker ended")


@pytest.fixture
def page() -> Page:
    return Page()


async def test_what_waited_is_asked_again_as_it_was(page: Page) -> None:
    worker = Mortal(page, deaths=1, computing=False)

    reply = await SteadyDataplane(worker, page).call("infer", {"name": "m"}, X)

    assert reply.result == {"kind": "infer"}
    first, second = worker.asked
    assert first == second == {"name": "m", "token": first["token"]}


async def test_what_was_computed_is_asked_again_alone(page: Page) -> None:
    worker = Mortal(page, deaths=1)

    await SteadyDataplane(worker, page).call("op", {"op": "spmv"}, X)

    assert [asked.get("alone", False) for asked in worker.asked] == [False, True]


async def test_who_ends_two_workers_is_refused(page: Page) -> None:
    worker = Mortal(page, deaths=2)
    steady, other_door = SteadyDataplane(worker, page), SteadyDataplane(worker, page)

    with pytest.raises(DeadlyRequestError, match="ended the worker twice"):
        await steady.call("infer", {"name": "m"}, X)

    assert len(worker.asked) == 2
    for door in (steady, other_door):  # the page is shared
        with pytest.raises(DeadlyRequestError):
            await door.call("infer", {"name": "m"}, {"x": np.ones(3)})
        await door.call("infer", {"name": "m"}, {"x": np.zeros(3)})
        await door.call("infer", {"name": "other"}, X)
    assert len(worker.asked) == 6


async def test_two_ends_for_which_it_is_not_to_blame(page: Page) -> None:
    worker = Mortal(page, deaths=2, computing=False)
    steady = SteadyDataplane(worker, page)

    with pytest.raises(WorkerLostError):
        await steady.call("infer", {"name": "m"}, X)

    await steady.call("infer", {"name": "m"}, X)


async def test_what_changes_something_is_not_repeated(page: Page) -> None:
    worker = Mortal(page, deaths=1)

    with pytest.raises(WorkerLostError):
        await SteadyDataplane(worker, page).call("load", {"name": "m"})

    assert len(worker.asked) == 1


async def test_a_successor_that_does_not_come(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    worker = Mortal(page, deaths=1)

    with pytest.raises(WorkerLostError, match="not ready yet") as caught:
        await SteadyDataplane(worker, page).call("infer", {"name": "m"}, X)

    assert caught.value.retry_after == 1


async def test_before_the_first_worker_nobody_waits(page: Page) -> None:
    worker = Mortal(page, deaths=1)
    worker.ready = False

    with pytest.raises(WorkerLostError):
        await SteadyDataplane(worker, page).call("infer", {"name": "m"}, X)

    assert len(worker.asked) == 1


async def test_of_several_workers_another_takes_over_at_once(page: Page) -> None:
    lost, whole = Mortal(page, deaths=9), Mortal(page, deaths=0)
    steady = SteadyDataplane(FleetDataplane([lost, whole]), page)

    for _ in range(4):
        await steady.call("infer", {"name": "m"}, X)

    assert len(whole.asked) == 4
