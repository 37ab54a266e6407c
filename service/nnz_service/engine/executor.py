"""Run a plan in an arena taken from a pool, from any number of threads."""

from __future__ import annotations

import contextvars
import functools
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from nnz_kernels.api.device import DeviceMemory
from nnz_kernels.arrays import arena
from nnz_service.engine.device_executor import DeviceArena, upload_constants
from nnz_service.engine.graph import Array
from nnz_service.engine.plan import Plan, Slot

#: Arenas kept for later runs, and bytes that these may take beyond the first; more
#: exist while more threads run at once.
IDLE_ARENAS, IDLE_BYTES = 4, 256 << 20


class Runnable(Protocol):
    """Memory for one run at a time, with every step attached to it once."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs."""
        ...

    def timed(self, feeds: Mapping[str, Array]) -> list[float]:
        """Run once and return the milliseconds that each step took."""
        ...


class Arena:
    """Memory of the host for one run."""

    def __init__(self, plan: Plan, fill: int = 0) -> None:
        self.memory = arena(plan.arena_bytes)
        # Written once so that no page is touched for the first time in a request.
        self.memory[:] = fill
        self._plan = plan
        self._loads = [self._array(slot) for _, _, slot in plan.loads]
        self._calls = [
            step.attach(*(self._array(slot) for slot in step.slots))
            for step in plan.steps
        ]
        self._results = [self._array(slot) for _, _, slot in plan.results]
        # Overflow gives infinity and 0/0 gives NaN, as in any other runtime. NumPy
        # keeps that in the context, and to enter one costs less than to change it. An
        # empty one: that of the request which came first is not for all others.
        self._context = contextvars.Context()
        self._context.run(functools.partial(np.seterr, all="ignore"))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs."""
        return self._context.run(self._run, feeds)

    def timed(self, feeds: Mapping[str, Array]) -> list[float]:
        """Run once and return the milliseconds that each step took."""
        return self._context.run(self._timed, feeds)

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self._load(feeds)
        for call in self._calls:
            call()
        return self._fetch()

    def _timed(self, feeds: Mapping[str, Array]) -> list[float]:
        self._load(feeds)
        took = []
        for call in self._calls:
            start = time.perf_counter_ns()
            call()
            took.append((time.perf_counter_ns() - start) / 1e6)
        return took

    def _load(self, feeds: Mapping[str, Array]) -> None:
        for (name, call, _), array in zip(self._plan.loads, self._loads, strict=True):
            call(feeds[name], array)

    def _fetch(self) -> dict[str, Array]:
        pairs = zip(self._plan.results, self._results, strict=True)
        return {name: call(array) for (name, call, _), array in pairs}

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
    """A plan with its pool of arenas; `run` may be called from several threads.

    Args:
        plan: What to run.
        fill: What memory of the host holds at first.
        device: Where arrays lie, None for the host.
    """

    def __init__(
        self, plan: Plan, fill: int = 0, device: DeviceMemory[Any] | None = None
    ) -> None:
        self.plan = plan
        self._fill = fill
        self._device = device
        self._constants = {} if device is None else upload_constants(plan, device)
        self._idle: list[Runnable] = []
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; `feeds` are in C order and of the plan's shapes."""
        arena = self._take()
        try:
            return arena.run(feeds)
        finally:
            self._give(arena)

    def timed(self, feeds: Mapping[str, Array]) -> list[float]:
        """Run once and return the milliseconds that each step took."""
        arena = self._take()
        try:
            return arena.timed(feeds)
        finally:
            self._give(arena)

    def _take(self) -> Runnable:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        if self._device is not None:
            return DeviceArena(self.plan, self._device, self._constants)
        return Arena(self.plan, self._fill)

    def _give(self, arena: Runnable) -> None:
        with self._lock:
            idle = len(self._idle)
            small = idle * self.plan.arena_bytes < IDLE_BYTES
            if not idle or (idle < IDLE_ARENAS and small):
                self._idle.append(arena)
