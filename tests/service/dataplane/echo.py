"""What answers with what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
from service.waiting import until

from nnz_service.dataplane import Pending, Reply, SocketDataplane, Tensors
from nnz_service.errors import UnsupportedModelError


class Echo:
    """Answers with what it got; `sleep` waits until it is cancelled."""

    def __init__(self) -> None:
        self.ready = True
        self.detail = "fine"
        self.sleeping = asyncio.Event()
        self.cancelled = asyncio.Event()

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def begin(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors,
        deadline: float | None,
    ) -> Pending | None:
        return None

    async def handle(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors,
        deadline: float | None,
    ) -> Reply:
        if kind == "ping":
            return Reply({"ready": self.ready, "detail": self.detail})
        if kind == "sleep":
            return await self.sleep()
        if kind == "refuse":
            raise UnsupportedModelError("cannot", nodes=["a (Loop)"])
        if kind == "break":
            raise ZeroDivisionError("inner secret")
        if kind == "unsendable":
            return Reply({}, {"x": np.ones(1, complex)})
        return Reply({"kind": kind, **params}, dict(tensors), {"compute": 0.5})

    async def sleep(self) -> Reply:
        self.sleeping.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        return Reply()


async def until_ready(plane: SocketDataplane, *, ready: bool = True) -> None:
    await until(lambda: plane.ready is ready)
