"""A real server over a small worker that doubles numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from service.web.doubler import Doubler, running

from nnz_kernels.backends import Backend
from nnz_service import logs
from nnz_service.dataplane import Admission, InlineDataplane
from nnz_service.gateway import Limits
from nnz_service.jobs import SqlStore
from nnz_service.jobs.memory import MemoryStore
from nnz_service.keys import Keyring
from nnz_service.repository import Repository
from nnz_service.web import create_app
from nnz_service.web.guard import Guard
from nnz_service.worker import Host, Toolbox


@pytest.fixture(scope="module", autouse=True)
def _plain_log() -> None:
    """Faults are logged in one line; drawing them takes seconds."""
    logs.configure("error", "web")


@pytest.fixture(scope="module")
def _doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def doubler(_doubler: Doubler) -> Iterator[Doubler]:
    """The worker behind `server`; each test finds it as new."""
    yield _doubler
    vars(_doubler).clear()
    vars(_doubler).update(vars(Doubler()))


@pytest.fixture(scope="module")
def make_app(
    _doubler: Doubler, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., FastAPI]]:
    """Build applications over the doubler, with other limits, a key or a guard."""
    repository = Repository(tmp_path_factory.mktemp("home"))

    def make(
        limits: Limits | None = None,
        key: str | None = None,
        guard: Guard | None = None,
        **more: Any,
    ) -> FastAPI:
        limits = limits or Limits()
        admission = Admission(limits.max_inflight, limits.max_inflight_bytes)
        parts = {
            "repository": repository,
            "jobs": MemoryStore(),
            "admission": admission,
        }
        return create_app(
            limits=limits,
            dataplane=_doubler,
            guard=guard or Guard(Keyring(key)),
            **(parts | more),
        )

    yield make
    repository.close()


@pytest.fixture(scope="module")
def server(make_app: Callable[..., FastAPI]) -> Iterator[str]:
    """Host and port of a server with default limits and no key."""
    with running(make_app()) as address:
        yield address


@pytest.fixture(scope="module")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of `real_server`."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def real_server(real_home: Path) -> Iterator[str]:
    """Host and port of a server over the real worker, on reference kernels."""
    home = real_home
    repository, jobs = Repository(home), SqlStore(home / "catalog.sqlite")
    host = Host(repository, jobs, Toolbox(Backend.REFERENCE))
    limits = Limits()
    app = create_app(
        limits=limits,
        dataplane=InlineDataplane(host),
        repository=repository,
        jobs=jobs,
        admission=Admission(limits.max_inflight, limits.max_inflight_bytes),
    )
    with running(app) as found:
        yield found
    repository.close()
    jobs.close()


@pytest.fixture(scope="module")
def real(real_server: str) -> Iterator[httpx2.Client]:
    """A client of `real_server`."""
    with httpx2.Client(base_url=f"http://{real_server}", timeout=60) as client:
        yield client
