"""Bodies that go straight into the memory in which they cross to the worker."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import httpx2
import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from service.processes import until
from service.waiting import SOON
from service.web.doubler import Doubler, running
from service.web.wire import LENGTH, infer, read
from starlette.types import Message

from nnz_service.dataplane import Admission
from nnz_service.gateway import Limits
from nnz_service.web.answers import tensor_answer
from nnz_service.web.codecs import TensorRequest

ROWS = 400_000  # of three FP32: 4.8 MB
X = np.random.default_rng(0).standard_normal((ROWS, 3)).astype(np.float32)


@pytest.fixture
def http(server: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://{server}", timeout=SOON) as client:
        yield client


def request(x: np.ndarray = X, name: str = "x") -> bytes:
    """A whole request, head and body."""
    entry = {
        "name": name,
        "shape": list(x.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": x.nbytes},
    }
    asked = {"inputs": [entry], "parameters": {"binary_data_output": True}}
    text = orjson.dumps(asked)
    head = (
        f"POST /v2/models/double/infer HTTP/1.1\r\nHost: a\r\n{LENGTH}: {len(text)}\r\n"
        f"Content-Length: {len(text) + x.nbytes}\r\n\r\n"
    )
    return head.encode() + text + x.tobytes()


def connect(server: str) -> socket.socket:
    host, _, port = server.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=SOON)


def answers(sock: socket.socket, count: int = 1) -> list[tuple[int, bytes]]:
    """Read so many answers; returns their statuses and bodies."""
    with sock.makefile("rb") as file:
        return [one_answer(file) for _ in range(count)]


def one_answer(file: BinaryIO) -> tuple[int, bytes]:
    status = int(file.readline().split()[1])
    length = 0
    while (line := file.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        length = int(value) if name == b"content-length" else length
    return status, file.read(length)


def doubled(body: bytes, x: np.ndarray = X) -> bool:
    return body.endswith((2 * x).tobytes())


@pytest.mark.parametrize("rows", [21_000, 22_000, ROWS])
def test_answer_is_right(http: httpx2.Client, rows: int) -> None:
    """Around the size from which a body is large."""
    found = read(infer(http, "double", {"x": X[:rows]}))

    np.testing.assert_array_equal(found["y"], 2 * X[:rows])


@pytest.mark.parametrize("piece", [1 << 20, 65_537, 9_973])
def test_arrives_in_pieces(server: str, piece: int) -> None:
    whole = request()
    with connect(server) as sock:
        for at in range(0, len(whole), piece):
            sock.sendall(whole[at : at + piece])
        [(status, body)] = answers(sock)
    assert (status, doubled(body)) == (200, True)


def test_two_behind_each_other(server: str) -> None:
    """Sent before the first is answered; the second waits for its turn."""
    with connect(server) as sock:
        sock.sendall(request() + request(X[:50_000]))
        first, second = answers(sock, 2)
    assert (first[0], doubled(first[1])) == (200, True)
    assert (second[0], doubled(second[1], X[:50_000])) == (200, True)


def test_refused_while_it_arrives(server: str, doubler: Doubler) -> None:
    """What is still to come is read over, and the next request is answered."""
    with connect(server) as sock:
        sock.sendall(request(name="z"))
        [(status, body)] = answers(sock)
        assert (status, b"double takes x" in body) == (422, True)
        sock.sendall(request(X[:10]))
        assert answers(sock)[0][0] == 200


def test_client_leaves_in_the_middle(make_app: Callable[..., FastAPI]) -> None:
    """Its slot, its bytes and the memory of its body are given back."""
    whole = request()
    admission = Admission(20, 20 * len(whole))
    with running(make_app(admission=admission)) as address:
        before = memories()
        clients = [connect(address) for _ in range(20)]
        for sock in clients:
            sock.sendall(whole[: len(whole) // 2])
        until(lambda: admission.used_slots == 20 and memories() == before + 20)
        for sock in clients:
            sock.close()
        until(lambda: admission.used_slots == 0 and memories() == before)

        assert admission.used_bytes == 0
        with httpx2.Client(base_url=f"http://{address}", timeout=SOON) as http:
            found = read(infer(http, "double", {"x": X}))["y"]
    np.testing.assert_array_equal(found, 2 * X)


def memories() -> int:
    """Count the memory files that this process holds, less what nobody can reach."""
    gc.collect()
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(link.readlink()).startswith("/memfd:")
    return found


@pytest.mark.parametrize("behind", [b"", b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_answer_that_nobody_reads(
    make_app: Callable[..., FastAPI], capfd: pytest.CaptureFixture[str], behind: bytes
) -> None:
    """It holds its slot until it is cut, at the end of its time, and no longer."""
    limits = Limits(max_inflight=1, request_timeout=1.0)
    with (
        running(make_app(limits)) as address,
        httpx2.Client(base_url=f"http://{address}", timeout=SOON) as http,
        connect(address) as sock,
    ):
        sock.sendall(request() + behind)
        assert sock.recv(12) == b"HTTP/1.1 200"
        time.sleep(0.3)
        assert infer(http, "double", {"x": X[:10]}).status_code == 429

        until(lambda: infer(http, "double", {"x": X[:10]}).status_code == 200)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(1 << 20):
                received += len(piece)

    assert received < X.nbytes
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(("rows", "messages"), [(1000, 1), (10_000, 3)])
async def test_only_a_large_answer_ends_apart(rows: int, messages: int) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    asked = TensorRequest({}, {}, {}, (), True)
    answer = await tensor_answer({}, {"x": X[:rows]}, asked, binary_default=True)
    await answer({"type": "http"}, receive, send)

    start, *bodies = sent
    assert len(bodies) == messages
    assert [one.get("more_body", False) for one in bodies] == [True] * (
        messages - 1
    ) + [False]
    assert b"".join(one["body"] for one in bodies).endswith(X[:rows].tobytes())
    assert dict(start["headers"])[b"content-length"] == b"%d" % sum(
        len(one["body"]) for one in bodies
    )


def test_descriptors_are_given_back(server: str, http: httpx2.Client) -> None:
    infer(http, "double", {"x": X})
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())

    for _ in range(10):
        infer(http, "double", {"x": X})

    deadline = time.monotonic() + SOON
    while sum(1 for _ in Path("/proc/self/fd").iterdir()) > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_memory_is_said(
    server: str, http: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if offset > 1_000_000:
            raise full
        return len(data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        refused = infer(http, "double", {"x": X})

    assert refused.status_code == 429
    assert "no memory for the body now: No space left" in refused.json()["error"]
    assert "retry-after" in refused.headers
    assert infer(http, "double", {"x": X}).status_code == 200
