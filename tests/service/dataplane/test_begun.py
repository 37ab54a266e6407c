"""Calls that begin on the event loop and are answered by the thread that computed."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.dataplane.echo import Echo, until_ready
from service.waiting import until

from nnz_service.dataplane import (
    Listener,
    Pending,
    Reply,
    SocketDataplane,
    Tensors,
)
from nnz_service.dataplane.packing import BIG
from nnz_service.errors import (
    ImpossibleError,
    MalformedError,
    ServiceError,
    WorkerLostError,
)


class Device(Echo):
    """Leaves every call to the test, which answers it as another thread would."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[Future[Any]] = []

    def begin(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors,
        deadline: float | None,
    ) -> Pending | None:
        if kind in {"ping", "elsewhere"}:
            return None
        if kind == "refuse":
            raise ImpossibleError("not with these")
        if kind == "break":
            raise ZeroDivisionError("inner secret")
        future: Future[Any] = Future()
        self.begun.append(future)
        return Pending(future, lambda outcome: Reply({"kind": kind}, outcome))

    def answer(self, outcome: Any) -> None:
        self._on_a_thread(lambda: self.begun[-1].set_result(outcome))

    def fail(self, error: Exception) -> None:
        self._on_a_thread(lambda: self.begun[-1].set_exception(error))

    def _on_a_thread(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()


@pytest.fixture
async def device() -> Device:
    return Device()


@pytest.fixture
async def plane(device: Device) -> AsyncIterator[SocketDataplane]:
    with tempfile.TemporaryDirectory(prefix="nnz-test-") as folder:
        listener = Listener(Path(folder) / "worker", device)
        listener.start()
        made = SocketDataplane(Path(folder) / "worker")
        await made.start()
        await until_ready(made)
        yield made
        await made.close()
        listener.close()


async def asked(
    plane: SocketDataplane, device: Device, kind: str = "any"
) -> asyncio.Task[Reply]:
    """Ask, and wait until the call has begun."""
    before = len(device.begun)
    call = asyncio.create_task(plane.call(kind, {}))
    await until(lambda: len(device.begun) > before)
    return call


@pytest.mark.parametrize("nbytes", [8, 1 << 16, BIG, 3 * BIG])
async def test_answer_of_another_thread(
    plane: SocketDataplane, device: Device, nbytes: int
) -> None:
    y = np.random.default_rng(0).integers(0, 256, nbytes, np.uint8)
    call = await asked(plane, device)

    device.answer({"y": y})

    reply = await call
    assert reply.result == {"kind": "any"}
    np.testing.assert_array_equal(reply.tensors["y"], y)


async def test_others_are_handled_on_the_loop(plane: SocketDataplane) -> None:
    assert (await plane.call("elsewhere", {"a": 1})).result["a"] == 1


async def test_refused_at_once(plane: SocketDataplane) -> None:
    with pytest.raises(ImpossibleError, match="not with these"):
        await plane.call("refuse", {})


async def test_faults_of_ours_hide_their_text(
    plane: SocketDataplane, device: Device
) -> None:
    with pytest.raises(ServiceError, match=r"^break failed: ZeroDivisionError$"):
        await plane.call("break", {})
    call = await asked(plane, device)
    device.fail(ZeroDivisionError("inner secret"))
    with pytest.raises(ServiceError, match=r"^any failed: ZeroDivisionError$"):
        await call


async def test_typed_errors_cross(plane: SocketDataplane, device: Device) -> None:
    call = await asked(plane, device)

    device.fail(WorkerLostError("the device is gone"))

    assert plane.ready
    with pytest.raises(WorkerLostError, match="the device is gone"):
        await call
    assert not plane.ready  # who asks again waits for the next one


async def test_outcome_that_cannot_cross(
    plane: SocketDataplane, device: Device
) -> None:
    call = await asked(plane, device)

    device.answer({"y": np.ones(1, complex)})

    with pytest.raises(MalformedError, match="complex"):
        await call


async def test_caller_who_leaves_cancels_what_waits(
    plane: SocketDataplane, device: Device
) -> None:
    call = await asked(plane, device)

    call.cancel()

    await until(device.begun[0].cancelled)
    second = await asked(plane, device)
    device.answer({})
    assert (await second).result == {"kind": "any"}


async def test_caller_who_leaves_while_it_computes(
    plane: SocketDataplane, device: Device
) -> None:
    call = await asked(plane, device)
    device.begun[0].set_running_or_notify_cancel()

    call.cancel()
    await asyncio.sleep(0.05)
    device.answer({"y": np.zeros(1)})

    second = await asked(plane, device)
    device.answer({})
    assert (await second).result == {"kind": "any"}


async def test_answers_that_nobody_reads_wait(
    plane: SocketDataplane, device: Device
) -> None:
    """More than the socket takes, from a thread, while the reader does not run."""
    calls = [await asked(plane, device) for _ in range(400)]
    y = np.zeros(20_000, np.uint8)

    def all_of_them() -> None:
        for future in device.begun:
            future.set_result({"y": y})

    thread = threading.Thread(target=all_of_them)
    thread.start()
    thread.join()  # on the event loop, which therefore reads nothing

    replies = await asyncio.gather(*calls)
    assert all(reply.tensors["y"].nbytes == y.nbytes for reply in replies)
