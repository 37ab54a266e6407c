"""Run a plan whose arrays lie on a device: constants resident, steps recorded."""

from __future__ import annotations

import ctypes
import functools
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnz_kernels.api.device import DeviceMemory
from nnz_service.engine.graph import Array
from nnz_service.engine.plan import Call, Plan, Slot, Step

_BYTE = np.dtype(np.uint8)


class DeviceArena:
    """Memory on the device for one run at a time, with every step attached to it once.

    Steps in a row that stay on the device are one graph; one that needs the host gets
    its arrays there and back.

    Args:
        plan: What to run.
        device: Where.
        constants: Arrays of the plan's constant storages, shared by all its arenas.
    """

    def __init__(
        self, plan: Plan, device: DeviceMemory[Any], constants: Mapping[int, Any]
    ) -> None:
        self._plan, self._device, self._constants = plan, device, constants
        self._memory = device.empty((plan.arena_bytes,), np.uint8)
        self._inputs = [(name, self._array(slot)) for name, _, slot in plan.loads]
        self._results = [(name, self._array(slot)) for name, _, slot in plan.results]
        self._calls = [self._attached(step) for step in plan.steps]
        self._segments: list[Call] = []

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs."""
        with self._device.turn:
            self._load(feeds)
            # The first run loads kernels and libraries, which no graph may record.
            first = not self._segments
            for call in self._calls if first else self._segments:
                call()
            results = self._fetch()
            if first:
                self._segments = self._recorded()
            return results

    def _recorded(self) -> list[Call]:
        """Return the calls, with each run of those that stay on the device as one."""
        pairs = zip(self._plan.steps, self._calls, strict=True)
        segments: list[Call] = []
        for host, group in itertools.groupby(pairs, key=lambda pair: pair[0].host):
            calls = [call for _, call in group]
            segments += calls if host else [self._device.capture(calls)]
        return segments

    def timed(self, feeds: Mapping[str, Array]) -> list[float]:
        """Run step by step and return the milliseconds that each took."""
        with self._device.turn:
            self._load(feeds)
            took = []
            for call in self._calls:
                self._device.synchronize()
                start = time.perf_counter_ns()
                call()
                self._device.synchronize()
                took.append((time.perf_counter_ns() - start) / 1e6)
            return took

    def _load(self, feeds: Mapping[str, Array]) -> None:
        for name, array in self._inputs:
            self._device.to_device(feeds[name], array)

    def _fetch(self) -> dict[str, Array]:
        return {
            name: np.ascontiguousarray(self._device.to_host(array)).reshape(array.shape)
            for name, array in self._results
        }

    def _array(self, slot: Slot) -> Any:
        storage = self._plan.storages[slot.storage]
        memory, offset = self._memory, storage.offset + slot.offset
        if storage.array is not None:
            memory, offset = self._constants[slot.storage], slot.offset
        return self._device.view(memory, offset, slot.dtype, slot.shape, slot.strides)

    def _attached(self, step: Step) -> Call:
        arrays = [self._array(slot) for slot in step.slots]
        if not step.host:
            return step.attach(*arrays)
        storages = self._plan.storages
        constant = [storages[slot.storage].array is not None for slot in step.slots]
        return functools.partial(self._on_host, step.attach, arrays, constant)

    def _on_host(
        self, attach: Callable[..., Call], arrays: list[Any], constant: list[bool]
    ) -> None:
        """Run a step of the host on copies, and bring those that may have changed
        back.
        """
        copies = [self._device.to_host(array) for array in arrays]
        with np.errstate(all="ignore"):
            attach(*copies)()
        for copy, array, fixed in zip(copies, arrays, constant, strict=True):
            if fixed:
                continue
            low, high = array.extent
            where = self._device.view(array, low, _BYTE, (high - low,), (1,))
            self._device.to_device(_spread(copy, low, high), where)


def upload_constants(plan: Plan, device: DeviceMemory[Any]) -> dict[int, Any]:
    """Return the constant storages of a plan on the device."""
    return {
        number: device.to_device(np.ascontiguousarray(storage.array))
        for number, storage in enumerate(plan.storages)
        if storage.array is not None
    }


def _spread(array: Array, low: int, high: int) -> Array:
    """Return the bytes from *low* to *high*, counted from the first element."""
    if array.size == 0:
        return np.empty(0, np.uint8)
    first = np.lib.stride_tricks.as_strided(array, (1,), (array.itemsize,))
    base = first.ctypes.data + low
    return np.ctypeslib.as_array((ctypes.c_uint8 * (high - low)).from_address(base))
