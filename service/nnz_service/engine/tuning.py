"""Time the kernels that could run a layer, and take the fastest.

A cost model says which formats are worth a try; what decides is a measurement on the
grids that the layer will run on. On the CPU the order of a sum is the same in all of
them but ``winograd``, so for finite inputs the choice of another changes no bit of an
answer; on a device some share a sum out, each in an order of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from nnz_kernels.api.conv import ConvSpec, Tiling
from nnz_kernels.api.device import DeviceMemory
from nnz_kernels.arrays import arena
from nnz_kernels.planes import Grid
from nnz_service.engine.choices import Choices
from nnz_service.engine.graph import Array

if TYPE_CHECKING:
    from nnz_kernels.api import Kernels
    from nnz_kernels.api.conv import PreparedConv

#: A block is worth a try if the cost model gives it at most so many times the least.
WORTH_A_TRY = 1.7

#: Weight of bytes against time: a format of twice the bytes must be 19 % faster. It
#: also keeps a choice from changing with the noise of a machine.
BYTES = 0.3

#: Rounds in which all candidates take turns, at most, and seconds after which no other
#: begins. After two, those so many times slower than the best are out: a kernel's first
#: run in a process may have had to read its code.
ROUNDS, ENOUGH_S, HOPELESS = 11, 0.15, 1.6

#: Times that a device does what is measured, in one graph.
REPEATS = 10

#: Milliseconds of a first run from which on it counts as a measurement.
SLOW_MS = 20.0

#: Bytes of input, output and scratch of a layer beyond which nothing is measured.
MOST_BYTES = 1 << 29

_TILINGS = get_args(Tiling)


@dataclass(frozen=True, slots=True)
class Problem:
    """One layer, and where it runs.

    Args:
        weights: ``(oc, ic / groups, kh, kw)``.
        bias: ``(oc,)`` or None.
        spec: Geometry and clamp.
        grids: Of input and output on the main shapes.
    """

    weights: Array
    bias: Array | None
    spec: ConvSpec
    grids: tuple[Grid, Grid]


@dataclass(frozen=True, slots=True)
class Timed:
    """A candidate with its time; the kernel by its name."""

    block: int | None
    tiling: Tiling
    kernel: str
    ms: float
    nbytes: int


@dataclass(slots=True)
class Tuner:
    """Measures for one load.

    Args:
        kernels: The back-end.
        threads: Threads that a layer will use.
        choices: What was measured before.
        seconds: When this much was spent, the cost model decides about the rest.
    """

    kernels: Kernels[Array]
    threads: int
    choices: Choices
    seconds: float
    _buffers: dict[str, Any] = field(default_factory=dict)

    def measure(
        self, problem: Problem, expected: Mapping[int | None, float]
    ) -> list[Timed]:
        """Time candidates, the one to take first; nothing if time has run out.

        Args:
            problem: The layer.
            expected: What the cost model says of each block, None for dense, as a
                share of dense time.
        """
        key = self._key(problem, expected)
        known = self._known(self.choices.get(key), problem, expected)
        if known:
            return known
        if self.seconds <= 0:
            return []
        began = time.perf_counter()
        found = self._race(problem, expected)
        self.seconds -= time.perf_counter() - began
        if found:
            self.choices.put(key, [list(astuple(timed)) for timed in found])
        return found

    def _known(
        self, entry: object, problem: Problem, expected: Mapping[int | None, float]
    ) -> list[Timed]:
        """Return what an entry holds; nothing if `measure` has not written it so."""
        found = []
        for one in entry if isinstance(entry, list) else ():
            timed = _read(one)
            if timed is None or timed.block not in expected:
                return []
            if timed.tiling not in self.kernels.tilings(
                problem.weights.shape,
                problem.spec,
                timed.block,
                problem.grids[1].pixels,
            ):
                return []
            found.append(timed)
        return found

    def _race(
        self, problem: Problem, expected: Mapping[int | None, float]
    ) -> list[Timed]:
        """Let candidates take turns, so that a slow moment of the machine hits all."""
        entries = self._prepare(problem, expected)
        calls = self._attach([one for *_, one in entries], problem)
        repeats = 1 if self.kernels.DEVICE is None else REPEATS
        found = [
            Timed(block, tiling, prepared.kernel, ms / repeats, prepared.nbytes)
            for (block, tiling, prepared), ms in zip(
                entries, _take_turns(calls, self.seconds), strict=False
            )
            if ms < np.inf
        ]
        return sorted(found, key=lambda timed: timed.ms * timed.nbytes**BYTES)

    def _prepare(
        self, problem: Problem, expected: Mapping[int | None, float]
    ) -> list[tuple[int | None, Tiling, PreparedConv[Array]]]:
        """Pack the candidates; tilings that can share their weights do."""
        shape, pixels = problem.weights.shape, problem.grids[1].pixels
        least = min(expected.values())
        entries: list[tuple[int | None, Tiling, PreparedConv[Array]]] = []
        for block in sorted(expected, key=lambda b: expected[b]):
            if not self._is_worth(block, expected[block], least):
                continue
            first: PreparedConv[Array] | None = None
            for tiling in self.kernels.tilings(shape, problem.spec, block, pixels):
                made = None if first is None else first.retiled(tiling)
                if made is None:
                    made = self.kernels.prepare_conv(
                        problem.weights,
                        problem.bias,
                        problem.spec,
                        block=block,
                        tiling=tiling,
                    )
                first = first or made
                entries.append((block, tiling, made))
        return entries

    def _is_worth(self, block: int | None, share: float, least: float) -> bool:
        """Whether to try what should take such a share of dense time.

        The model knows nothing of tensor cores, which multiply zeros at no cost.
        """
        cores = self.kernels.DEVICE is not None and self.kernels.PLANES.itemsize == 2
        return share <= WORTH_A_TRY * least or (block is None and cores)

    def _attach(
        self, entries: list[PreparedConv[Array]], problem: Problem
    ) -> list[Callable[[], None]]:
        """Attach all candidates to the same buffers; none if these are too large."""
        x, y = problem.grids
        outputs, inputs = problem.weights.shape[:2]
        planes = x.size(inputs * problem.spec.groups), y.size(outputs)
        if 4 * sum(planes) > MOST_BYTES:
            return []
        bound = [one.bind(x, y, threads=self.threads) for one in entries]
        sizes = (*planes, max(one.scratch for one in bound))
        if 4 * sum(sizes) > MOST_BYTES:
            return []
        source, target, scratch = map(self._buffer, ("x", "y", "scratch"), sizes)
        calls = [one.attach(source, target, None, scratch) for one in bound]
        device = self.kernels.DEVICE
        if device is None:
            return calls
        return [_Repeated(device, call) for call in calls]

    def _buffer(self, name: str, floats: int) -> Any:
        """Memory that grows with need: layers of a model share it."""
        held, device = self._buffers.get(name), self.kernels.DEVICE
        if held is None or held.size < floats:
            held = self._buffers[name] = (
                _zeros(floats)
                if device is None
                else device.zeros((floats,), self.kernels.PLANES)
            )
        if device is None:
            return held[:floats]
        return device.view(held, 0, held.dtype, (floats,), held.strides)

    def _key(self, problem: Problem, expected: Mapping[int | None, float]) -> str:
        spec = problem.spec
        shares = [(str(block), round(20 * time)) for block, time in expected.items()]
        parts: list[Any] = [
            problem.weights.shape, spec.strides, spec.dilations, spec.pads, spec.groups,
            *(astuple(grid) for grid in problem.grids), self.threads, shares,
        ]  # fmt: skip
        return json.dumps(parts, separators=(",", ":"))


def _zeros(floats: int) -> Array:
    """Return memory as an arena's is, that has been written once."""
    made: Array = arena(4 * floats).view(np.float32)
    made[:] = 0
    return made


class _Repeated:
    """Has a device make a call so often that nothing else counts.

    Waiting for a small layer takes longer than the layer, and so does starting it: only
    in a graph are the times those of the device. The first time records it.
    """

    def __init__(self, device: DeviceMemory[Any], call: Callable[[], None]) -> None:
        self._device, self._call = device, call
        self._replay: Callable[[], None] | None = None

    def __call__(self) -> None:
        if self._replay is None:
            self._call()  # loads what it launches, which cannot be recorded
            self._replay = self._device.capture([self._call] * REPEATS)
        self._replay()
        self._device.synchronize()


def _read(entry: object) -> Timed | None:
    """Return a candidate from a file, None if it does not look like one."""
    match entry:
        case [
            int() | None as block,
            str(tiling),
            str(kernel),
            float(ms),
            int(nbytes),
        ] if (
            block is not True
            and tiling in _TILINGS
            and 0 < ms < np.inf
            and 0 < nbytes < 2**63
        ):
            return Timed(block, cast("Tiling", tiling), kernel, ms, nbytes)
        case _:
            return None


def _take_turns(calls: list[Callable[[], None]], seconds: float) -> list[float]:
    """Return the least milliseconds of each call, infinity where time has run out."""
    if len(calls) == 1:  # whose first time may have had to read or record it
        return [min(_once(calls[0]), _once(calls[0]))]
    began = time.perf_counter()
    best = [np.inf] * len(calls)
    for number in range(ROUNDS):
        if number > 2 and time.perf_counter() - began > ENOUGH_S:
            break
        for i, call in enumerate(calls):
            if number > 1 and best[i] > HOPELESS * min(best):
                continue
            if time.perf_counter() - began > seconds:
                return best
            took = _once(call)
            # The first round finds cold caches and fresh pages; where it takes long
            # these are no matter.
            if number == 1 and best[i] <= SLOW_MS:
                best[i] = np.inf
            best[i] = min(best[i], took)
    return best


def _once(call: Callable[[], None]) -> float:
    began = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - began) / 1e6
