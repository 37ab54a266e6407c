"""Every back-end in turn."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from nnz_kernels.api import Kernels
from nnz_kernels.backends import Backend, load
from nnz_kernels.cpu import _runtime
from nnz_kernels.errors import BackendUnavailableError

#: The back-ends that this version has; tests of one that it lacks would all be skips.
PRESENT = [b for b in Backend if find_spec(f"nnz_kernels.{b}")]


@pytest.fixture(
    params=[
        pytest.param(b, id=b, marks=[pytest.mark.gpu] if b == "cuda" else [])
        for b in PRESENT
    ],
    scope="session",
)
def kernels(request: pytest.FixtureRequest) -> Kernels[Any]:
    """One back-end; one that cannot load here is skipped with its reason."""
    try:
        return load(request.param)
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share work of any size out over up to three threads, whatever the machine has."""
    # Numba's own settings must stay as they are: it has started its threads by now.
    monkeypatch.setattr(_runtime, "_config", SimpleNamespace(NUMBA_NUM_THREADS=3))
    monkeypatch.setattr(_runtime, "GRAIN", 1)
