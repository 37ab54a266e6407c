"""Processes that have no file descriptor left, on both sides of the socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import resource
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from service.dataplane.echo import Echo, until_ready
from service.waiting import SOON, until

from nnz_service.dataplane import Listener, SocketDataplane, client, wire
from nnz_service.dataplane.channel import make_socket
from nnz_service.errors import UnavailableError


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nnz-test-") as name:
        yield Path(name)


@pytest.fixture
async def listener(folder: Path) -> AsyncIterator[Listener]:
    made = Listener(folder / "worker", Echo())
    made.start()
    yield made
    made.close()


@contextlib.contextmanager
def no_descriptor_free() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_descriptors_it_goes_on_trying(
    folder: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is there again as soon as one is free."""
    tried = asyncio.Event()

    def none_free() -> socket.socket:
        tried.set()
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(client, "make_socket", none_free)
    made = SocketDataplane(folder / "worker")
    await made.start()
    await asyncio.wait_for(tried.wait(), SOON)
    assert not made.ready
    assert "Too many open files" in made.detail

    monkeypatch.setattr(client, "make_socket", make_socket)

    await until_ready(made)
    await made.close()


async def test_without_descriptors_a_connection_waits(
    folder: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not asked for again and again, and let in when one is free."""
    refused: list[float] = []

    def none_free(self: socket.socket) -> None:
        refused.append(time.monotonic())
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "accept", none_free)
        made = SocketDataplane(folder / "worker")
        await made.start()
        await until(lambda: len(refused) == 2)
        assert refused[1] - refused[0] > 0.1

    assert await made.call("any", {}, {}) is not None
    await made.close()


class TestWithoutDescriptors:
    """An answer that this process has no room for is the trouble of that call alone."""

    @pytest.fixture
    def worker(self, folder: Path) -> Iterator[socket.socket]:
        with make_socket() as made:
            made.bind(str(folder / "worker"))
            made.listen()
            yield made

    async def test_one_call_fails(self, folder: Path, worker: socket.socket) -> None:
        loop, plane = asyncio.get_running_loop(), SocketDataplane(folder / "worker")
        await plane.start()
        peer, _ = await loop.sock_accept(worker)
        assert b'"ping"' in await loop.sock_recv(peer, 1000)
        call = asyncio.create_task(plane.call("any", {}))
        other = asyncio.create_task(plane.call("any", {}))
        numbers = [json.loads(await loop.sock_recv(peer, 1000))["id"] for _ in range(2)]
        answer, memory = wire.pack(
            {"id": numbers[0], "result": {}, "timings": {}}, {"x": np.zeros(1 << 14)}
        )
        assert memory is not None

        with no_descriptor_free():
            socket.send_fds(peer, [answer], [memory])
            with pytest.raises(UnavailableError, match="no file descriptor was free"):
                await call

        answer, _ = wire.pack({"id": numbers[1], "result": {}, "timings": {}}, {})
        peer.send(answer)
        assert (await other).result == {}
        os.close(memory)
        await plane.close()
        peer.close()
