from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nnz_service.cli import app

DEMO = Path(__file__).parents[3] / "deploy" / "demo"


class Runner:
    """Runs the command line inside this process."""

    def __call__(self, *words: str | Path) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    def json(self, *words: str | Path) -> Any:
        """Run with ``--json``; what is printed must be one document, nothing else."""
        result = self(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def nnz() -> Runner:
    return Runner()


@pytest.fixture
def dense_model() -> Path:
    return DEMO / "digits_dense.onnx"


@pytest.fixture
def sparse_model() -> Path:
    return DEMO / "digits_sparse.onnx"
