"""Every back-end in turn; CUDA's on a GPU if there is one, and emulated on the host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nnz_kernels.api import Kernels
from nnz_kernels.backends import Backend, load, probe
from nnz_kernels.cpu import _runtime
from nnz_kernels.errors import BackendUnavailableError
from nnz_kernels.hosted import hosted


@pytest.fixture(
    params=[
        pytest.param("reference"),
        pytest.param("cpu"),
        pytest.param("cuda-emulated"),
        # Where there is none, all of its tests would be skips.
        *(
            [pytest.param("cuda", marks=pytest.mark.gpu)]
            if probe(Backend.CUDA).available
            else []
        ),
    ],
    scope="session",
)
def kernels(request: pytest.FixtureRequest) -> Kernels[Any]:
    """One back-end; one that cannot load here is skipped with its reason."""
    if request.param == "cuda-emulated":
        return hosted(request.getfixturevalue("emulated"))
    try:
        return hosted(load(Backend(request.param)))
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share work of any size out over up to three threads, whatever the machine has."""
    # Numba's own settings must stay as they are: it has started its threads by now.
    monkeypatch.setattr(_runtime, "_config", SimpleNamespace(NUMBA_NUM_THREADS=3))
    monkeypatch.setattr(_runtime, "GRAIN", 1)
