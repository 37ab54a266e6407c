"""Both ends of the socket in one event loop, with a handler of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.dataplane.echo import Echo, until_ready
from service.waiting import SOON

from nnz_service.dataplane import (
    InlineDataplane,
    Listener,
    SocketDataplane,
)
from nnz_service.dataplane.channel import make_socket
from nnz_service.errors import (
    DeadlineError,
    ImpossibleError,
    MalformedError,
    ServiceError,
    UnsupportedModelError,
    WorkerLostError,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nnz-test-") as name:
        yield Path(name)


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def listener(folder: Path, echo: Echo) -> AsyncIterator[Listener]:
    made = Listener(folder / "worker", echo)
    made.start()
    yield made
    made.close()


@pytest.fixture
async def plane(folder: Path, listener: Listener) -> AsyncIterator[SocketDataplane]:
    made = SocketDataplane(folder / "worker")
    await made.start()
    await until_ready(made)
    yield made
    await made.close()


class TestCalls:
    async def test_round_trip(self, plane: SocketDataplane) -> None:
        x = np.arange(12.0).reshape(3, 4)

        reply = await plane.call("any", {"a": [1, "ü"]}, {"x": x.T})

        assert reply.result == {"kind": "any", "a": [1, "ü"]}
        np.testing.assert_array_equal(reply.tensors["x"], x.T)
        assert reply.timings == {"compute": 0.5}

    async def test_big_tensors_and_big_json(self, plane: SocketDataplane) -> None:
        x = np.random.default_rng(0).integers(0, 9, (3, 1 << 20))

        reply = await plane.call("any", {"text": "y" * 200_000}, {"x": x})

        np.testing.assert_array_equal(reply.tensors["x"], x)
        assert reply.result["text"] == "y" * 200_000

    async def test_many_at_once(self, plane: SocketDataplane) -> None:
        replies = await asyncio.gather(
            *(plane.call("any", {"n": n}, {"x": np.full(9, n)}) for n in range(1000))
        )

        assert [reply.result["n"] for reply in replies] == list(range(1000))
        assert all(r.tensors["x"][0] == n for n, r in enumerate(replies))

    async def test_typed_errors_cross(self, plane: SocketDataplane) -> None:
        with pytest.raises(UnsupportedModelError, match="cannot") as caught:
            await plane.call("refuse", {})

        assert caught.value.nodes == ("a (Loop)",)

    @pytest.mark.parametrize("inline", [True, False])
    async def test_faults_of_ours_hide_their_text(
        self, plane: SocketDataplane, echo: Echo, inline: bool
    ) -> None:
        way: Any = InlineDataplane(echo) if inline else plane

        with pytest.raises(ServiceError, match=r"^break failed: ZeroDivisionError$"):
            await way.call("break", {})

    async def test_tensor_that_cannot_cross(self, plane: SocketDataplane) -> None:
        with pytest.raises(MalformedError, match="complex"):
            await plane.call("any", {}, {"x": np.ones(1, complex)})
        with pytest.raises(MalformedError, match="complex"):
            await plane.call("unsendable", {})

        assert (await plane.call("any", {})).result == {"kind": "any"}


class TestDeadlines:
    @pytest.mark.parametrize("inline", [True, False])
    async def test_passed(
        self, plane: SocketDataplane, echo: Echo, inline: bool
    ) -> None:
        way: Any = InlineDataplane(echo) if inline else plane

        with pytest.raises(DeadlineError, match=r"longer than 0\.05 s"):
            await way.call("sleep", {}, timeout=0.05)

        async with asyncio.timeout(SOON):
            await echo.cancelled.wait()

    async def test_cancelled_caller(self, plane: SocketDataplane, echo: Echo) -> None:
        call = asyncio.create_task(plane.call("sleep", {}))
        async with asyncio.timeout(SOON):
            await echo.sleeping.wait()

            call.cancel()
            await echo.cancelled.wait()

        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await plane.call("any", {})).result == {"kind": "any"}


class TestLoss:
    async def test_no_worker(self, folder: Path) -> None:
        plane = SocketDataplane(folder / "nobody")
        await plane.start()

        with pytest.raises(WorkerLostError, match="cannot be reached"):
            await plane.call("any", {}, {"x": np.ones(3)})

        assert not plane.ready
        await plane.close()

    async def test_requests_in_flight_fail_and_the_next_worker_is_found(
        self, folder: Path, plane: SocketDataplane, echo: Echo, listener: Listener
    ) -> None:
        call = asyncio.create_task(plane.call("sleep", {}))
        async with asyncio.timeout(SOON):
            await echo.sleeping.wait()

        listener.close()

        with pytest.raises(WorkerLostError, match="while it held this request"):
            await call
        assert not plane.ready
        successor = Listener(folder / "worker", echo)
        successor.start()
        await until_ready(plane)
        assert (await plane.call("any", {})).result == {"kind": "any"}
        successor.close()

    async def test_closing_fails_what_is_in_flight(
        self, plane: SocketDataplane, echo: Echo
    ) -> None:
        call = asyncio.create_task(plane.call("sleep", {}))
        async with asyncio.timeout(SOON):
            await echo.sleeping.wait()

            await plane.close()
            await echo.cancelled.wait()

        with pytest.raises(WorkerLostError):
            await call

    async def test_not_ready_worker(self, plane: SocketDataplane, echo: Echo) -> None:
        echo.ready, echo.detail = False, "compiling"

        await until_ready(plane, ready=False)

        assert plane.detail == "compiling"


class TestRawPeers:
    """A peer that does not speak the protocol harms nobody but itself."""

    @pytest.mark.parametrize(
        "datagram",
        [
            b"garbage",
            b"{}",
            b'{"id": "x"}',
            b'{"kind": "any", "params": {}, "tensors": [1]}',
        ],
    )
    async def test_is_hung_up(
        self, folder: Path, plane: SocketDataplane, datagram: bytes
    ) -> None:
        peer = make_socket()
        loop = asyncio.get_running_loop()
        peer.connect(str(folder / "worker"))

        peer.send(datagram)

        async with asyncio.timeout(SOON):
            assert await loop.sock_recv(peer, 10) == b""
        peer.close()
        assert (await plane.call("any", {})).result == {"kind": "any"}

    @pytest.mark.parametrize(
        "fields",
        [
            b'"params": {}',
            b'"kind": "any"',
            b'"kind": "a", "params": {}, "timeout": "x"',
        ],
    )
    async def test_is_told(
        self, folder: Path, listener: Listener, fields: bytes
    ) -> None:
        peer = make_socket()
        peer.connect(str(folder / "worker"))

        peer.send(b'{"id": 5, %s}' % fields)

        async with asyncio.timeout(SOON):
            answer = await asyncio.get_running_loop().sock_recv(peer, 1000)
        peer.close()
        assert b'"MalformedError"' in answer
        assert b'"id":5' in answer

    async def test_whose_memory_is_lost_is_told(
        self, folder: Path, listener: Listener
    ) -> None:
        peer = make_socket()
        peer.connect(str(folder / "worker"))

        peer.send(b'{"id": 5, "kind": "any", "params": {}, "tensors": [1]}')
        peer.send(b'{"id": 6, "at": [0, 100]}')

        async with asyncio.timeout(SOON):
            loop = asyncio.get_running_loop()
            answers = [await loop.sock_recv(peer, 1000) for _ in range(2)]
        peer.close()
        assert all(b'"UnavailableError"' in answer for answer in answers)
        assert b'"id":5' in answers[0]
        assert b'"id":6' in answers[1]

    async def test_leaves_at_once(self, folder: Path, plane: SocketDataplane) -> None:
        for _ in range(5):
            peer = make_socket()
            peer.connect(str(folder / "worker"))
            peer.close()

        assert (await plane.call("any", {})).result == {"kind": "any"}

    async def test_never_reads(
        self, folder: Path, plane: SocketDataplane, echo: Echo
    ) -> None:
        peer = make_socket()
        peer.connect(str(folder / "worker"))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        with contextlib.suppress(BlockingIOError):
            for n in range(100_000):
                peer.send(b'{"id": %d, "kind": "any", "params": {}}' % n)

        assert (await plane.call("any", {})).result == {"kind": "any"}
        peer.close()


async def test_errors_keep_their_type_inline(echo: Echo) -> None:
    with pytest.raises(ImpossibleError, match="cannot"):
        await InlineDataplane(echo).call("refuse", {})
