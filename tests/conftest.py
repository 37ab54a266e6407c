"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with real models, pictures and matrices; not part of the repository."""
    folder = os.environ.get("NNZ_TEST_DATA")
    if folder is None:
        if os.environ.get("NNZ_REQUIRE"):
            pytest.fail("NNZ_REQUIRE is set, but NNZ_TEST_DATA names no folder")
        pytest.skip("NNZ_TEST_DATA names no folder with real models and matrices")
    return Path(folder)
