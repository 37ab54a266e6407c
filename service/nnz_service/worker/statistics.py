"""Counts and nanoseconds of each servable, as the protocol's statistics have them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_STAGES = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
    "cache_hit", "cache_miss",
)  # fmt: skip
_COMPUTE = ("compute_input", "compute_infer", "compute_output")
_MEMORY = 0.5  # weight of the newest run in the running mean of the cost of a row


@dataclass(slots=True)
class Duration:
    """How often something happened and how long it took altogether."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count one more."""
        self.count += 1
        self.ns += ns

    def to_json(self) -> dict[str, int]:
        """The protocol's form."""
        return {"count": self.count, "ns": self.ns}


@dataclass(frozen=True, slots=True)
class Run:
    """One run on the device: rows, and nanoseconds to join, compute and split."""

    rows: int
    join: int
    compute: int
    split: int


@dataclass(slots=True)
class Counters:
    """Everything counted for one servable; thread-safe."""

    clock: Callable[[], float] = time.time
    inference_count: int = 0
    execution_count: int = 0
    last_inference: int = 0
    stages: dict[str, Duration] = field(
        default_factory=lambda: {name: Duration() for name in _STAGES}
    )
    batches: dict[int, dict[str, Duration]] = field(default_factory=dict)
    _row_ns: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cost(self, rows: int) -> int:
        """Nanoseconds that a run over `rows` should take; 0 before the first run."""
        return int(self._row_ns * rows)

    def ran(self, run: Run) -> None:
        """Count one run of a whole batch that succeeded."""
        with self._lock:
            self.execution_count += 1
            self.last_inference = int(self.clock() * 1000)
            newest = run.compute / max(run.rows, 1)
            weight = _MEMORY if self._row_ns else 1.0
            self._row_ns += weight * (newest - self._row_ns)
            sizes = self.batches.setdefault(
                run.rows, {name: Duration() for name in _COMPUTE}
            )
            for name, ns in zip(
                _COMPUTE, (run.join, run.compute, run.split), strict=True
            ):
                sizes[name].add(ns)

    def answered(self, rows: int, queue: int, run: Run) -> None:
        """Count one request that succeeded; it waited `queue` nanoseconds."""
        with self._lock:
            self.inference_count += rows
            self.stages["success"].add(queue + run.join + run.compute + run.split)
            self.stages["queue"].add(queue)
            self.stages["compute_input"].add(run.join)
            self.stages["compute_infer"].add(run.compute)
            self.stages["compute_output"].add(run.split)

    def failed(self, ns: int) -> None:
        """Count one request that failed, `ns` after its arrival."""
        with self._lock:
            self.stages["fail"].add(ns)

    def to_json(self, name: str, version: str, nbytes: int = 0) -> dict[str, Any]:
        """One entry of `model_stats`; `nbytes` is what the servable holds now."""
        with self._lock:
            return {
                "name": name,
                "version": version,
                "last_inference": self.last_inference,
                "inference_count": self.inference_count,
                "execution_count": self.execution_count,
                "inference_stats": {k: d.to_json() for k, d in self.stages.items()},
                "response_stats": {},
                "batch_stats": [
                    {"batch_size": size}
                    | {name: d.to_json() for name, d in self.batches[size].items()}
                    for size in sorted(self.batches)
                ],
                "memory_usage": [{"type": "CPU", "id": 0, "byte_size": nbytes}],
            }
