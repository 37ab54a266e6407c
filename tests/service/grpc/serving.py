"""A real gRPC server on a free loopback port, run by a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from numpy.typing import NDArray
from service.web.doubler import Doubler

from nnz_service.dataplane import Admission, Dataplane, Reply, Tensors
from nnz_service.gateway import Drain, Limits, Parts, Turns, Watch, open_controls
from nnz_service.grpc import Server
from nnz_service.grpc.protocol import messages as m
from nnz_service.jobs.memory import MemoryStore
from nnz_service.keys import Keyring
from nnz_service.metrics import Metrics
from nnz_service.repository import Repository
from nnz_service.servable import datatype

SOON = 10.0
_PATH = "/inference.GRPCInferenceService/"


@dataclass(slots=True)
class Running:
    """A server and what a test may do to it."""

    address: str
    parts: Parts
    admission: Admission
    loop: asyncio.AbstractEventLoop
    stopping: asyncio.Event

    def stop(self) -> None:
        """Begin to stop; who serves waits for the end."""
        self.loop.call_soon_threadsafe(self.stopping.set)


def parts_of(
    dataplane: Dataplane,
    repository: Repository,
    limits: Limits | None = None,
    *,
    lending: bool = False,
) -> Parts:
    drain, jobs = Drain(), MemoryStore()
    return Parts(
        limits or Limits(),
        dataplane,
        repository,
        jobs,
        Metrics(),
        drain,
        Turns(repository.home / "run" / "turns"),
        open_controls(repository.home, shared_memory=lending),
        Watch(jobs, lambda: drain.begun),
    )


@contextlib.contextmanager
def running(
    parts: Parts, key: str | Keyring | None = None, grace: float = 5, **told: Any
) -> Iterator[Running]:
    """Serve until the block ends."""
    started: Future[Running] = Future()

    async def serve() -> None:
        limits = parts.limits
        admission = Admission(limits.max_inflight, limits.max_inflight_bytes)
        await parts.dataplane.start()
        keyring = key if isinstance(key, Keyring) else Keyring(key)
        server = Server(parts, admission, keyring, **told)
        port = await server.start("127.0.0.1:0")
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        address = f"127.0.0.1:{port}"
        started.set_result(Running(address, parts, admission, loop, stopping))
        await stopping.wait()
        await server.stop(grace)
        await parts.dataplane.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    found = started.result(SOON)
    try:
        yield found
    finally:
        if thread.is_alive():
            with contextlib.suppress(RuntimeError):  # its loop has just ended
                found.stop()
        thread.join(grace + SOON)
        assert not thread.is_alive(), "the server did not stop"


class Echo(Doubler):
    """A worker that gives back what it gets."""

    async def _infer(self, params: Mapping[str, Any], tensors: Tensors) -> Reply:
        copies = {name: array.copy() for name, array in tensors.items()}
        return Reply({"name": "double", "version": "1"}, copies)


class Held(Doubler):
    """A doubler whose first answer waits for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    async def _infer(self, params: Mapping[str, Any], tensors: Tensors) -> Reply:
        self.entered.set()
        while not self.release.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.005)
        return await super()._infer(params, tensors)


class Line:
    """Calls by name with messages or bytes, without a client library around them."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def __call__(self, name: str, message: Message | bytes, **options: Any) -> Any:
        """Return the written response, and the call itself."""
        written = message if isinstance(message, bytes) else message.SerializeToString()
        call = self._channel.unary_unary(_PATH + name)
        return call.with_call(written, timeout=SOON, **options)

    def later(self, name: str, message: Message, **options: Any) -> Any:
        """Return a future of the written response."""
        call = self._channel.unary_unary(_PATH + name)
        return call.future(message.SerializeToString(), **options)

    def stream(self, sent: Iterable[bytes], **options: Any) -> Any:
        """Return the written responses of a stream of requests."""
        call = self._channel.stream_stream(_PATH + "ModelStreamInfer")
        return call(iter(sent), **options)


@contextlib.contextmanager
def line(address: str) -> Iterator[Line]:
    with grpc.insecure_channel(address) as channel:
        yield Line(channel)


def request_of(**tensors: NDArray[Any]) -> m.ModelInferRequest:
    """A request with raw tensors."""
    entry = m.ModelInferRequest.InferInputTensor
    return m.ModelInferRequest(
        model_name="double",
        inputs=[
            entry(name=name, datatype=datatype(array.dtype), shape=array.shape)
            for name, array in tensors.items()
        ],
        raw_input_contents=[array.tobytes() for array in tensors.values()],
    )


def refusal(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def pending(over: threading.Event) -> Iterator[bytes]:
    """A stream of requests that sends none until it is over."""
    over.wait(SOON)
    yield from ()


def trailing(error: Any) -> dict[str, str]:
    return dict(error.trailing_metadata())
