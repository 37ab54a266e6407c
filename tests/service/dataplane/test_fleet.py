"""Several workers behind one dataplane."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from nnz_service.dataplane import FleetDataplane, Reply
from nnz_service.errors import ImpossibleError, ServiceError, WorkerLostError


class Worker:
    """Answers with its name, when it is let; or with an error."""

    detail = "at work"

    def __init__(self, name: str, ready: bool = True) -> None:
        self.name, self.ready = name, ready
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: ServiceError | None = None
        self.result: dict[str, Any] = {"from": name}

    async def start(self) -> None:
        self.asked.append("start")

    async def close(self) -> None:
        self.asked.append("close")

    async def call(
        self, kind: str, params: Mapping[str, Any], *_: object, **__: object
    ) -> Reply:
        self.asked.append(kind)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Reply(self.result)


async def names(fleet: FleetDataplane, count: int) -> list[str]:
    return [(await fleet.call("infer", {})).result["from"] for _ in range(count)]


async def test_idle_workers_take_turns() -> None:
    fleet = FleetDataplane([Worker("a"), Worker("b")])

    assert await names(fleet, 4) == ["a", "b", "a", "b"]


async def test_a_busy_worker_is_spared() -> None:
    busy, idle = Worker("busy"), Worker("idle")
    fleet = FleetDataplane([busy, idle])
    busy.gate.clear()
    held = asyncio.create_task(fleet.call("infer", {}))
    await asyncio.sleep(0)

    assert await names(fleet, 3) == ["idle"] * 3

    busy.gate.set()
    assert (await held).result == {"from": "busy"}


async def test_one_that_is_replaced_gets_nothing() -> None:
    lost, whole = Worker("lost", ready=False), Worker("whole")
    fleet = FleetDataplane([lost, whole])

    assert fleet.ready
    assert fleet.detail == "worker 0: at work; worker 1: at work"
    assert await names(fleet, 3) == ["whole"] * 3
    whole.ready = False
    assert not fleet.ready


async def test_all_of_them_load() -> None:
    workers = [Worker("a"), Worker("b"), Worker("c")]
    fleet = FleetDataplane(workers)
    await fleet.start()
    # A worker that is being replaced reads the catalog as it starts.
    workers[1].error = WorkerLostError("gone")

    reply = await fleet.call("load", {"name": "m"})

    await fleet.close()
    assert reply.result == {"from": "a"}
    assert all(worker.asked == ["start", "load", "close"] for worker in workers)


async def test_what_one_refuses_is_refused() -> None:
    workers = [Worker("a"), Worker("b")]
    workers[0].error = WorkerLostError("gone")
    workers[1].error = ImpossibleError("too large")

    with pytest.raises(ImpossibleError, match="too large"):
        await FleetDataplane(workers).call("load", {"name": "m"})
    workers[1].error = workers[0].error
    with pytest.raises(WorkerLostError):
        await FleetDataplane(workers).call("load", {"name": "m"})


def _stats(name: str, count: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    duration = {"count": count, "ns": 10 * count}
    row = {
        "name": name, "version": "1", "last_inference": count, "inference_count": count,
        "inference_stats": {"success": duration}, "response_stats": {},
        "batch_stats": [{"batch_size": s, "compute_infer": duration} for s in sizes],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": 100}],
    }  # fmt: skip
    return {"model_stats": [row], "scheduler": {"queued": 1, "jobs": 2}}


async def test_statistics_add_up() -> None:
    workers = [Worker("a"), Worker("b"), Worker("c")]
    workers[0].result = _stats("m", 3, (1, 2))
    workers[1].result = _stats("m", 4, (2, 4))
    workers[2].result = _stats("other", 5, ())

    found = (await FleetDataplane(workers).call("stats", {})).result

    m, other = found["model_stats"]
    assert (m["inference_count"], m["last_inference"]) == (7, 4)
    assert m["inference_stats"] == {"success": {"count": 7, "ns": 70}}
    sizes = [(s["batch_size"], s["compute_infer"]["count"]) for s in m["batch_stats"]]
    assert sizes == [(1, 3), (2, 7), (4, 4)]
    assert m["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": 200}]
    assert other["name"] == "other"
    assert found["scheduler"] == {"queued": 3, "jobs": 6}
