"""A real server on a free loopback port, over a small worker that doubles numbers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from nnz_service.dataplane import Reply, Tensors
from nnz_service.errors import (
    DeadlineError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
)
from nnz_service.jobs.memory import MemoryStore
from nnz_service.repository.catalog import Repository
from nnz_service.web import Limits, create_app

_ZERO = {"count": 0, "ns": 0}
_STAGES = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
    "cache_hit", "cache_miss",
)  # fmt: skip


class Room:
    def __init__(self, slots: int, nbytes: int) -> None:
        self.slots, self.nbytes = slots, nbytes

    @contextlib.contextmanager
    def reserve(self, nbytes: int) -> Iterator[None]:
        if not self.slots or nbytes > self.nbytes:
            raise OverloadedError("full")
        self.slots -= 1
        self.nbytes -= nbytes
        try:
            yield
        finally:
            self.slots += 1
            self.nbytes += nbytes


class Doubler:
    """A worker with one model, `double`: y = 2 x for x of shape [-1, 3]."""

    ready = True
    detail = ""

    def __init__(self) -> None:
        self.resident = True
        self.hold: asyncio.Event | None = None
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
        if params.get("name", "double") != "double" or not self.resident:
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
        if self.hold is not None:
            self.entered.set()
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        result = {"name": "double", "version": "1"}
        return Reply(result, {"y": 2 * x}, {"queue": 0.001, "compute": 0.002})

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

    async def _index(self, params: Mapping[str, Any], _: Tensors) -> Reply:
        state = "READY" if self.resident else "UNAVAILABLE"
        row = {"name": "double", "version": "1", "kind": "model", "state": state}
        return Reply({"models": [{**row, "reason": ""}]})


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve an application from a thread; gives host:port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error")
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


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def make_app(doubler: Doubler, tmp_path: Path) -> Iterator[Callable[..., FastAPI]]:
    """Build applications over the doubler, with other limits or a key."""
    repository = Repository(tmp_path / "home")

    def make(limits: Limits | None = None, key: str | None = None) -> FastAPI:
        limits = limits or Limits()
        return create_app(
            limits=limits,
            dataplane=doubler,
            repository=repository,
            jobs=MemoryStore(),
            admission=Room(limits.max_inflight, limits.max_inflight_bytes),
            key=key,
        )

    yield make
    repository.close()


@pytest.fixture
def server(make_app: Callable[..., FastAPI]) -> Iterator[str]:
    """Host and port of a server with default limits and no key."""
    with running(make_app()) as address:
        yield address
