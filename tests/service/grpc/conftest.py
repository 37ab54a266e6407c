"""A real gRPC server over a small worker that doubles numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from service.grpc.serving import Running, parts_of, running
from service.web.doubler import Doubler

from nnz_service import logs
from nnz_service.dataplane import Dataplane
from nnz_service.gateway import Limits
from nnz_service.keys import Keyring
from nnz_service.repository import Repository

Serve = Callable[..., AbstractContextManager[Running]]


@pytest.fixture(scope="module", autouse=True)
def _plain_log() -> None:
    """Faults are logged in one line; drawing them takes seconds."""
    logs.configure("error", "grpc")


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
def serve(
    _doubler: Doubler, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serve]:
    """Run servers over the doubler or another worker, with other limits or a key."""
    repository = Repository(tmp_path_factory.mktemp("home"))

    def run(
        limits: Limits | None = None,
        key: str | Keyring | None = None,
        worker: Dataplane = _doubler,
        grace: float = 5.0,
        *,
        lending: bool = False,
        **told: Any,
    ) -> AbstractContextManager[Running]:
        parts = parts_of(worker, repository, limits, lending=lending)
        return running(parts, key, grace, **told)

    yield run
    repository.close()


@pytest.fixture(scope="module")
def server(serve: Serve) -> Iterator[Running]:
    """A server with default limits and no key."""
    with serve() as found:
        yield found
