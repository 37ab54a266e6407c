"""The least that a server of this shape can do: what the real one is measured against.

One process takes requests (uvicorn, no framework), another gives the bytes back through
shared memory. It checks nothing, knows no error and serves one request at a time.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import struct
import sys
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import uvicorn

SIZE = 8 << 20  # bytes of one request at most
_COUNT = struct.Struct("q")


def work(sock: socket.socket, name: str) -> None:
    """Answer each message; the bytes are where they should be already."""
    memory = SharedMemory(name=name)
    while message := sock.recv(_COUNT.size):
        sock.send(message)
    memory.close()


class Bare:
    """An ASGI application that gives the one binary tensor of a request back."""

    def __init__(self) -> None:
        self._memory = SharedMemory(create=True, size=SIZE)
        self._sock, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        context = multiprocessing.get_context("fork")
        context.Process(
            target=work, args=(other, self._memory.name), daemon=True
        ).start()
        other.close()
        self._sock.setblocking(False)
        self._answer: asyncio.Future[int] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = bytearray()
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message["body"]
        split = int(dict(scope["headers"])[b"inference-header-content-length"])
        tensor = await self._there_and_back(memoryview(body)[split:])
        head = _head(json.loads(body[:split])["inputs"][0], len(tensor))
        headers = [
            (b"inference-header-content-length", b"%d" % len(head)),
            (b"content-length", b"%d" % (len(head) + len(tensor))),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": head + tensor})

    async def _there_and_back(self, data: memoryview) -> bytes:
        loop = asyncio.get_running_loop()
        if self._answer is None:
            loop.add_reader(self._sock, self._arrived)
        self._answer = loop.create_future()
        self._memory.buf[: len(data)] = data
        self._sock.send(_COUNT.pack(len(data)))
        return bytes(self._memory.buf[: await self._answer])

    def _arrived(self) -> None:
        message = self._sock.recv(_COUNT.size)
        if message and self._answer is not None:
            self._answer.set_result(_COUNT.unpack(message)[0])


def _head(entry: dict[str, Any], nbytes: int) -> bytes:
    output = {
        "name": "y",
        "datatype": entry["datatype"],
        "shape": entry["shape"],
        "parameters": {"binary_data_size": nbytes},
    }
    answer = {"model_name": "m", "model_version": "1", "outputs": [output]}
    return json.dumps(answer).encode()


if __name__ == "__main__":
    config = uvicorn.Config(
        Bare(), port=int(sys.argv[1]), loop="uvloop", lifespan="off", access_log=False
    )
    uvicorn.Server(config).run()
