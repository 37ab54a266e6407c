"""Run a plan in an arena taken from a pool, from any number of threads."""

from __future__ import annotations

import contextvars
import functools
import threading
import time
from collections.abc import Mapping

import numpy as np

from nnz_kernels.arrays import arena
from nnz_service.engine.graph import Array
from nnz_service.engine.plan import Plan, Slot

#: Arenas kept for later runs, and bytes that these may take beyond the first; more
#: exist while more threads run at once.
IDLE_ARENAS, IDLE_BYTES = 4, 256 << 20


class Arena:
    """Memory for one run at a time, with every step attached to it once."""

    def __init__(self, plan: Plan, fill: int = 0) -> None:
        self.memory = arena(plan.arena_bytes)
        # Written once so that no page is touched for the first time in a request.
        self.memory[:] = fill
        self._plan = plan
        self.loads = [self._array(slot) for _, _, slot in plan.loads]
        self.calls = [
            step.attach(*(self._array(slot) for slot in step.slots))
            for step in plan.steps
        ]
        self.results = [self._array(slot) for _, _, slot in plan.results]
        # Overflow gives infinity and 0/0 gives NaN, as in any other runtime. NumPy
        # keeps that in the context, and to enter one costs less than to change it. An
        # empty one: that of the request which came first is not for all others.
        self.context = contextvars.Context()
        self.context.run(functools.partial(np.seterr, all="ignore"))

    def _array(self, slot: Slot) -> Array:
        storage = self._plan.storages[slot.storage]
        if storage.array is None:
            memory, offset = self.memory, storage.offset + slot.offset
        else:
            memory, offset = storage.array, slot.offset
        if 0 in slot.shape or memory.nbytes == 0:
            return np.empty(slot.shape, slot.dtype)
        return np.ndarray(slot.shape, slot.dtype, memory.data, offset, slot.strides)


class Executor:
    """A plan with its pool of arenas; `run` may be called from several threads."""

    def __init__(self, plan: Plan, fill: int = 0) -> None:
        self.plan = plan
        self._fill = fill
        self._idle: list[Arena] = []
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; `feeds` are in C order and of the plan's shapes."""
        arena = self._take()
        try:
            return arena.context.run(self._run, arena, feeds)
        finally:
            self._give(arena)

    def _run(self, arena: Arena, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self._load(arena, feeds)
        for call in arena.calls:
            call()
        return self._results(arena)

    def timed(self, feeds: Mapping[str, Array]) -> list[float]:
        """Run once and return the milliseconds that each step took."""
        arena = self._take()
        try:
            return arena.context.run(self._timed, arena, feeds)
        finally:
            self._give(arena)

    def _timed(self, arena: Arena, feeds: Mapping[str, Array]) -> list[float]:
        self._load(arena, feeds)
        took = []
        for call in arena.calls:
            start = time.perf_counter_ns()
            call()
            took.append((time.perf_counter_ns() - start) / 1e6)
        return took

    def _load(self, arena: Arena, feeds: Mapping[str, Array]) -> None:
        for (name, call, _), array in zip(self.plan.loads, arena.loads, strict=True):
            call(feeds[name], array)

    def _results(self, arena: Arena) -> dict[str, Array]:
        return {
            name: call(array)
            for (name, call, _), array in zip(
                self.plan.results, arena.results, strict=True
            )
        }

    def _take(self) -> Arena:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Arena(self.plan, self._fill)

    def _give(self, arena: Arena) -> None:
        with self._lock:
            idle = len(self._idle)
            small = idle * self.plan.arena_bytes < IDLE_BYTES
            if not idle or (idle < IDLE_ARENAS and small):
                self._idle.append(arena)
