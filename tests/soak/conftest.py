"""A real server with a matrix in it, and what must hold once a fault is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest
import scipy.sparse as sp
from service.processes import Server
from soak.load import matrix

from nnz import Client

Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers on one home; each is ended."""
    made: list[Server] = []

    def start(**settings: Any) -> Server:
        server = Server(tmp_path / "home", log_level="critical", **settings)
        made.append(server)
        server.wait()
        return server

    yield start
    for server in made:
        server.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory: to write a file on a disk takes longer than to read it."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made there
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as made:
        yield Path(made)


@pytest.fixture
def a() -> sp.csr_array:
    return matrix()


def put(server: Server, a: sp.csr_array) -> str:
    """Store a matrix; returns its id."""
    with Client(server.url) as client:
        return str(client.matrices.put(a).id)


def idle(server: Server) -> bool:
    """Whether nothing is under way but the look itself."""
    lines = httpx2.get(f"{server.url}/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line[0] != "#")
    return float(values["nnz_http_requests_inflight"]) == 1
