"""Waiting with a bound for what other threads and processes do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SOON = 10.0


async def until(look: Callable[[], T], seconds: float = SOON) -> T:
    """Look again and again until it gives something true."""
    async with asyncio.timeout(seconds):
        while not (found := look()):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)
    return found
