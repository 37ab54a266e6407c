"""A servable of the tests' own: y = 2 x, with ways to make it slow or fail."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnz_service.errors import InvalidInputError
from nnz_service.servable import Tensors, TensorSpec

SOON = 10.0


class Doubler:
    """Doubles rows of three; a negative number in `x` breaks the whole run."""

    kind = "model"
    plans = False
    steady = True
    bitwise = True
    nbytes = 12

    def __init__(self, max_batch: int = 8) -> None:
        self.max_batch = max_batch
        self.inputs = (TensorSpec("x", np.dtype(np.float32), (None, 3)),)
        self.outputs = (TensorSpec("y", np.dtype(np.float32), (None, 3)),)
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def check(self, tensors: Tensors) -> None:
        if set(tensors) != {"x"} or tensors["x"].shape[1:] != (3,):
            raise InvalidInputError("x must be [n, 3]")

    def work(self, rows: int) -> int:
        return rows

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        self.entered.set()
        assert self.gate.wait(SOON)
        x = tensors["x"]
        self.batches.append(len(x))
        if (x < 0).any():
            raise FloatingPointError("negative")
        return {"y": 2 * x}

    def explain(self) -> list[dict[str, Any]]:
        return [{"name": "double", "op": "Mul"}]


def rows(count: int, value: float = 1.0) -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.full((count, 3), value, np.float32)}


def load_doubler(path: Path) -> Doubler:
    """Loader: the file holds the largest batch, or what is wrong."""
    text = path.read_text()
    if not text.isdecimal():
        raise RuntimeError(text)
    return Doubler(int(text))
