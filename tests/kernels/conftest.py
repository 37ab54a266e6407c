"""Every back-end in turn."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from nnz_kernels.api import Kernels
from nnz_kernels.backends import Backend, load
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
