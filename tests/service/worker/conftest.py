"""The runner's bench."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service.worker.counting import Bench, Counting

from nnz_service.worker import attempt, runner


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(attempt, "REPORT", 0.0)
    monkeypatch.setattr(attempt, "FIRST_SAVE", 0.0)
    monkeypatch.setattr(attempt, "SAVE", 0.0)
    monkeypatch.setattr(runner, "POLL", 0.02)
    Counting.gate.clear()
    Counting.made.clear()
    made = Bench(tmp_path)
    yield made
    Counting.gate.set()
    made.runner.close()
    made.scheduler.close()
    made.store.close()
