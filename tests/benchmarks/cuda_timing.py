"""Time on a GPU: events, a second-level cache that holds nothing, peers in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import cupy

from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.cupy_launcher import CupyLauncher

Call = Callable[[], Any]


class Clock:
    """Events on the stream of a launcher.

    Args:
        launcher: Whose device and stream.
        rounds: Times that each call is timed.
    """

    def __init__(self, launcher: CupyLauncher, rounds: int) -> None:
        self.launcher, self.rounds = launcher, rounds
        size = 2 * int(cupy.cuda.Device().attributes["L2CacheSize"])
        with launcher.stream:
            self._other = cupy.empty(max(size, 1 << 20), cupy.uint8)

    def race(self, calls: Mapping[str, Call]) -> dict[str, float]:
        """Return the median microseconds of each call; they take turns.

        Before each the second-level cache is filled with other data. That also keeps
        the device busy while the call is asked for, so that no time of the host counts.
        """
        took: dict[str, list[float]] = {name: [] for name in calls}
        with self.launcher.stream:
            for number in range(self.rounds + 2):
                for name, call in calls.items():
                    start, stop = cupy.cuda.Event(), cupy.cuda.Event()
                    # Long enough for the slowest of them to be asked for.
                    for turn in range(4):
                        self._other.fill((number + turn) % 251)
                    start.record()
                    call()
                    stop.record()
                    stop.synchronize()
                    if number >= 2:
                        elapsed = cupy.cuda.get_elapsed_time(start, stop)
                        took[name].append(1e3 * elapsed)
        return {name: statistics.median(times) for name, times in took.items()}

    def copy_speed(self) -> float:
        """Return the bytes a second that a large copy reads and writes."""
        with self.launcher.stream:
            size = 1 << 30
            source, target = (cupy.empty(size, cupy.uint8) for _ in range(2))
            took = self.race({"copy": lambda: cupy.copyto(target, source)})["copy"]
        return 2 * size / (took * 1e-6)


def as_cupy(array: DeviceArray) -> cupy.ndarray:
    """Return the same memory as an array of CuPy."""
    memory = cupy.cuda.UnownedMemory(array.address, array.nbytes, array)
    pointer = cupy.cuda.MemoryPointer(memory, 0)
    return cupy.ndarray(array.shape, array.dtype, pointer)
