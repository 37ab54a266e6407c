"""What a connection knows of one request."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from nnz_service.web.deps import unless_gone
from nnz_service.web.exchange import EXCHANGE, Exchange


def request(exchange: Exchange) -> Request:
    return Request({"type": "http", "state": {EXCHANGE: exchange}})


async def forever() -> None:
    await asyncio.Event().wait()


async def test_who_left_before_costs_nothing() -> None:
    """The work is ended, too, not left behind unawaited."""
    exchange, work = Exchange(lambda: None), forever()
    exchange.leave()

    with pytest.raises(ClientDisconnect):
        await unless_gone(request(exchange), work)

    with pytest.raises(RuntimeError, match="cannot reuse"):
        await work


async def test_who_leaves_meanwhile_is_not_worked_for() -> None:
    exchange = Exchange(lambda: None)
    call = asyncio.create_task(unless_gone(request(exchange), forever()))
    await asyncio.sleep(0)

    exchange.leave()

    with pytest.raises(ClientDisconnect):
        await call


async def test_cancelled_by_others_stays_cancelled() -> None:
    call = asyncio.create_task(unless_gone(request(Exchange(lambda: None)), forever()))
    await asyncio.sleep(0)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call


async def test_parts_go_to_who_collects_them() -> None:
    exchange, parts = Exchange(lambda: None), []
    assert exchange.take(b"before") is None

    exchange.collect(parts.append)

    assert exchange.take(b"one") is False
    assert exchange.take(b"x" * (1 << 20)) is True  # its bounds are to be looked at
    assert [len(part) for part in parts] == [3, 1 << 20]
    assert exchange.collected == 3 + (1 << 20)


async def test_failure_is_told_to_the_reader() -> None:
    def full(part: bytes) -> None:
        raise OSError("full")

    exchange = Exchange(lambda: None)
    exchange.collect(full)

    assert exchange.take(b"one") is True

    with pytest.raises(OSError, match="full"):
        exchange.check()
    assert exchange.take(b"two") is True  # and goes no further
