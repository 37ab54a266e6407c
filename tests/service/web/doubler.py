"""A small worker that doubles numbers, and a real server on a free loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI

from nnz_service.dataplane import Reply, Tensors
from nnz_service.errors import (
    DeadlineError,
    InvalidInputError,
    NotFoundError,
)
from nnz_service.web.connection import Connection

_ZERO = {"count": 0, "ns": 0}
_STAGES = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
    "cache_hit", "cache_miss",
)  # fmt: skip


class Doubler:
    """A worker with one model, `double`: y = 2 x for x of shape [-1, 3]."""

    ready = True
    detail = ""

    def __init__(self) -> None:
        self.resident = True
        self.hold_for_ever = False
        self.broken = False
        self.entered = threading.Event()
        self.cancelled = threading.Event()

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def call(
        self,
        kind: str,
        params: Mapping[str, Any],
        tensors: Tensors | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the protocol has it
    ) -> Reply:
        absent = not self.resident and kind in ("infer", "metadata")
        if params.get("name", "double") != "double" or absent:
            raise NotFoundError(f"there is no servable {params['name']!r}")
        try:
            async with asyncio.timeout(timeout):
                answer: Reply = await getattr(self, f"_{kind}")(params, tensors or {})
        except TimeoutError:
            raise DeadlineError("the deadline passed in the worker") from None
        return answer

    async def _metadata(self, params: Mapping[str, Any], _: Tensors) -> Reply:
        row = {"datatype": "FP32", "shape": [-1, 3]}
        return Reply(
            {
                "name": "double",
                "version": "1",
                "versions": ["1"],
                "kind": "model",
                "inputs": [{"name": "x", **row}],
                "outputs": [{"name": "y", **row}],
                "max_batch_size": 8,
                "nbytes": 4,
            }
        )

    async def _infer(self, params: Mapping[str, Any], tensors: Tensors) -> Reply:
        if set(tensors) != {"x"}:
            raise InvalidInputError(f"double takes x, got {sorted(tensors)}")
        x = tensors["x"]
        if x.dtype != np.float32 or x.ndim != 2 or x.shape[1] != 3:
            raise InvalidInputError(f"x is {x.dtype} {x.shape}, want float32 [-1, 3]")
        if not set(params.get("outputs", ["y"])) <= {"y"}:
            raise InvalidInputError("the only output is y")
        if self.broken:
            raise RuntimeError("secret")
        if self.hold_for_ever:
            self.entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        result = {"name": "double", "version": "1"}
        with np.errstate(over="ignore", invalid="ignore"):
            y = 2 * x
        return Reply(result, {"y": y}, {"queue": 0.001, "compute": 0.002})

    async def _stats(self, params: Mapping[str, Any], _: Tensors) -> Reply:
        row = {
            "name": "double",
            "version": "1",
            "last_inference": 1,
            "inference_count": 2,
            "execution_count": 1,
            "inference_stats": dict.fromkeys(_STAGES, _ZERO),
            "response_stats": {},
            "batch_stats": [],
            "memory_usage": [],
        }
        return Reply({"model_stats": [row], "scheduler": {}})

    async def _load(self, params: Mapping[str, Any], _: Tensors) -> Reply:
        self.resident = True
        return await self._metadata(params, _)

    async def _unload(self, params: Mapping[str, Any], _: Tensors) -> Reply:
        self.resident = False
        return Reply()

    async def _op(self, params: Mapping[str, Any], _: Tensors) -> Reply:
        raise InvalidInputError(f"the doubler has no op {params['op']}")

    async def _wake(self, params: Mapping[str, Any], _: Tensors) -> Reply:
        return Reply()

    async def _index(self, params: Mapping[str, Any], _: Tensors) -> Reply:
        state = "READY" if self.resident else "UNAVAILABLE"
        row = {"name": "double", "version": "1", "kind": "model", "state": state}
        return Reply({"models": [{**row, "reason": ""}]})


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve an application from a thread; gives host:port."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_level="error",
        http=Connection,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server did not stop"
