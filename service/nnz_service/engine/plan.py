"""A plan: steps in order, and one arena in which every buffer has its place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnz_service.engine.graph import Array, Shape

#: Bytes between places where buffers may start: a cache line, and a wide vector.
ALIGNMENT = 64


#: A step whose arrays are in place.
Call = Callable[[], None]


@dataclass(slots=True)
class Storage:
    """A piece of memory with the steps during which it holds something.

    Args:
        nbytes: Its size.
        array: The contents, for a constant; such a piece is not in the arena.
        first: Step that writes it first.
        last: Step that reads it last.
        offset: Its place in the arena.
    """

    nbytes: int
    array: Array | None = None
    first: int = -1
    last: int = -1
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """An array somewhere in a storage, `strides` and `offset` in bytes."""

    storage: int
    dtype: np.dtype[Any]
    shape: Shape
    strides: Shape
    offset: int = 0

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements lie in C order without gaps."""
        return bool(self.fake().flags.c_contiguous)

    def fake(self) -> Array:
        """An array of this layout that has no memory and must not be read."""
        return np.lib.stride_tricks.as_strided(
            np.zeros(1, self.dtype), self.shape, self.strides
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a plan.

    `attach(*arrays)`, with the arrays of `slots`, checks them once for an arena and
    returns the call without arguments that every run makes. The arrays are those of
    the back-end, NumPy's where `host` is set.
    """

    name: str
    op: str
    kernel: str
    attach: Callable[..., Call]
    slots: tuple[Slot, ...]
    host: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What `Executor` runs.

    Args:
        loads: For each use of an input its name, the call ``(input, array)`` that
            brings it into the arena, and where to.
        steps: Calls in order.
        results: For each output its name, the call ``array -> fresh array``, and where
            from.
        storages: Pieces of memory; those without an array lie in the arena.
        arena_bytes: Size of the arena.
    """

    loads: tuple[tuple[str, Callable[..., None], Slot], ...]
    steps: tuple[Step, ...]
    results: tuple[tuple[str, Callable[[Array], Array], Slot], ...]
    storages: tuple[Storage, ...]
    arena_bytes: int


@dataclass(slots=True)
class PlanBuilder:
    """Collects steps, and knows when each storage is in use."""

    storages: list[Storage] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    loads: list[tuple[str, Callable[..., None], Slot]] = field(default_factory=list)
    results: list[tuple[str, Callable[[Array], Array], Slot]] = field(
        default_factory=list
    )

    def allocate(self, dtype: np.dtype[Any], shape: Shape) -> Slot:
        """Take a new contiguous array in the arena."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.storages.append(Storage(nbytes, None, len(self.steps), len(self.steps)))
        return _contiguous(len(self.storages) - 1, dtype, shape)

    def constant(self, array: Array) -> Slot:
        """Hold a constant beside the arena."""
        # A copy, because kernels are compiled for arrays that can be written.
        self.storages.append(Storage(array.nbytes, np.array(array, order="C")))
        return _contiguous(len(self.storages) - 1, array.dtype, array.shape)

    def view(self, slot: Slot, change: Callable[[Array], Array]) -> Slot:
        """Return the slot that `change` makes of the array of another one.

        Args:
            slot: Where to look.
            change: Makes a view; it must not read or copy its argument.

        Raises:
            ValueError: `change` says that it would have to copy.
        """
        before = slot.fake()
        after = change(before)
        return Slot(
            slot.storage,
            after.dtype,
            after.shape,
            after.strides,
            slot.offset + _address(after) - _address(before),
        )

    def load(self, name: str, call: Callable[..., None], slot: Slot) -> None:
        """Bring an input into the arena before the first step."""
        self.storages[slot.storage].first = 0
        self.loads.append((name, call, slot))

    def step(
        self, name: str, op: str, kernel: str, call: Callable[..., None], *slots: Slot
    ) -> None:
        """Add a call that reads and writes the arrays of `slots` on the host."""

        def attach(*arrays: Array) -> Call:
            return functools.partial(call, *arrays)

        self._add(Step(name, op, kernel, attach, slots, host=True))

    def attached(
        self, name: str, op: str, kernel: str, attach: Callable[..., Call], *slots: Slot
    ) -> None:
        """Add a step that looks at the arrays of `slots` once, before the first run."""
        self._add(Step(name, op, kernel, attach, slots))

    def _add(self, step: Step) -> None:
        for slot in step.slots:
            self._touch(slot)
        self.steps.append(step)

    def result(self, name: str, call: Callable[[Array], Array], slot: Slot) -> None:
        """Give `call(array)` to the caller after the last step."""
        self.results.append((name, call, slot))

    def _touch(self, slot: Slot) -> None:
        self.storages[slot.storage].last = len(self.steps)

    def finish(self) -> Plan:
        """Give every storage its place."""
        for _, _, slot in self.results:
            self._touch(slot)
        arena_bytes = place(self.storages)
        return Plan(
            tuple(self.loads),
            tuple(self.steps),
            tuple(self.results),
            tuple(self.storages),
            arena_bytes,
        )


def place(storages: Sequence[Storage]) -> int:
    """Lay storages out so that those in use at the same time do not overlap.

    Largest first, each at the lowest place that is free during its life: within a few
    per cent of the best for such nets (Pisarchyk and Lee, "Efficient memory management
    for deep neural net inference", 2020).

    Returns:
        Bytes of the arena.
    """
    arena = sorted((s for s in storages if s.array is None), key=lambda s: -s.nbytes)
    # Columns: first step, last step, offset, end; rows are filled as places are found.
    table = np.array([(s.first, s.last, 0, 0) for s in arena], np.int64).reshape(-1, 4)
    for count, storage in enumerate(arena):
        first, last, offsets, ends = table[:count].T
        alive = (first <= storage.last) & (storage.first <= last)
        order = np.argsort(offsets[alive])
        # Where each gap between the others starts, and where it stops.
        starts = np.maximum.accumulate([0, *ends[alive][order]])
        fits = starts[:-1] + storage.nbytes <= offsets[alive][order]
        storage.offset = int(starts[np.argmax(fits) if fits.any() else -1])
        table[count, 2:] = storage.offset, _aligned(storage.offset + storage.nbytes)
    return int(table[:, 3].max(initial=0))


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _contiguous(storage: int, dtype: np.dtype[Any], shape: Shape) -> Slot:
    strides = []
    step = dtype.itemsize
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return Slot(storage, dtype, shape, tuple(reversed(strides)))


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
