"""What is measured on a device: graphs, dense kernels too, within the time there is."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from nnz_kernels.api.conv import ConvSpec
from nnz_kernels.planes import Grid
from nnz_service.engine.choices import Choices
from nnz_service.engine.tuning import REPEATS, Problem, Tuner


def problem() -> Problem:
    weights = np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1)
    return Problem(weights, None, ConvSpec(), (Grid(1, 6, 7, 1, 1),) * 2)


class Slow:
    """A device, its kernels and a layer: what starts for the first time takes 0.2 s."""

    DEVICE: Any
    scratch = 0
    PLANES = np.dtype(np.float16)
    kernel, nbytes = "slow", 1

    def __init__(self) -> None:
        self.DEVICE = self
        self.tried: list[tuple[int | None, str]] = []
        self.graphs: list[int] = []

    def tilings(self, *_: Any) -> tuple[str, ...]:
        return "direct", "panel"

    def prepare_conv(self, *_: Any, block: int | None, tiling: str) -> Slow:
        self.tried.append((block, tiling))
        return self

    def retiled(self, _: str) -> None:
        return None

    def bind(self, *_: Any, threads: int) -> Slow:
        return self

    def attach(self, *_: Any) -> Any:
        started: list[None] = []

        def call() -> None:
            if not started:
                time.sleep(0.2)
            started.append(None)

        return call

    def zeros(self, shape: Any, dtype: Any) -> Any:
        return np.zeros(shape, dtype)

    def view(self, memory: Any, *_: Any) -> Any:
        return memory

    def capture(self, calls: Any) -> Any:
        self.graphs.append(len(calls))
        return lambda: [call() for call in calls]

    def synchronize(self) -> None:
        pass


class TestDevice:
    def test_what_is_measured_is_a_graph(self) -> None:
        """One for each candidate: dense too, for tensor cores multiply zeros."""
        slow: Any = Slow()
        expected = {None: 1.0, 1: 0.3, 4: 0.1, 16: 0.9}

        found = Tuner(slow, 1, Choices(None, "test"), 60.0).measure(problem(), expected)

        assert slow.tried == [(b, t) for b in (4, None) for t in ("direct", "panel")]
        assert slow.graphs == [REPEATS] * 4
        assert max(timed.ms for timed in found) < 20 / REPEATS  # not of the first start

    def test_starting_takes_of_its_time(self) -> None:
        slow: Any = Slow()
        began = time.perf_counter()

        Tuner(slow, 1, Choices(None, "test"), 0.3).measure(
            problem(), dict.fromkeys([None, 1, 2, 4, 8], 1.0)
        )

        assert time.perf_counter() - began < 1.0
        assert len(slow.graphs) < len(slow.tried) == 10
