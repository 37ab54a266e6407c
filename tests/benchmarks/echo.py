"""What the client alone costs: plain sockets that give the tensor of a request back.

Neither HTTP is parsed, beyond where a request ends, nor JSON, and there is no other
process. It serves one connection after the other.
"""

from __future__ import annotations

import json
import re
import socket
import sys

SIZE = 8 << 20  # bytes of one request at most
_LENGTHS = {
    name: re.compile(rf"\r\n{name}: (\d+)".encode(), re.IGNORECASE)
    for name in ("content-length", "inference-header-content-length")
}


def serve(connection: socket.socket) -> None:
    """Answer requests until the client leaves."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    memory = bytearray(SIZE)
    view = memoryview(memory)
    while True:
        there, end, size, split = 0, -1, 0, 0
        while end < 0 or there < end + size:
            count = connection.recv_into(view[there:])
            if not count:
                return
            there += count
            if end < 0 and (end := memory.find(b"\r\n\r\n", 0, there) + 4) < 4:
                end = -1
            elif not size:
                head = bytes(view[:end])
                size, split = (int(_found(name, head)) for name in _LENGTHS)
        asked = json.loads(bytes(view[end : end + split]))["inputs"][0]
        tensor = view[end + split : end + size]
        connection.sendall(_head(asked["shape"], asked["datatype"], len(tensor)))
        connection.sendall(tensor)


def _found(name: str, head: bytes) -> bytes:
    found = _LENGTHS[name].search(head)
    assert found is not None, head
    return found[1]


def _head(shape: list[int], datatype: str, nbytes: int) -> bytes:
    output = {
        "name": "y", "datatype": datatype, "shape": shape,
        "parameters": {"binary_data_size": nbytes},
    }  # fmt: skip
    text = json.dumps({"model_name": "m", "model_version": "1", "outputs": [output]})
    fields = (
        f"HTTP/1.1 200 OK\r\ncontent-length: {len(text) + nbytes}\r\n"
        f"inference-header-content-length: {len(text)}\r\n\r\n"
    )
    return (fields + text).encode()


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listening:
        while True:
            accepted, _ = listening.accept()
            with accepted:
                serve(accepted)
