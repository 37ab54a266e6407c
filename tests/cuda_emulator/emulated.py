"""A launcher that runs kernels on the host, compiled by g++ with ``cuda_words.h``."""

from __future__ import annotations

import ctypes
import platform
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cuda_emulator import building
from cuda_emulator.planting import Change
from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.family import PRECISIONS
from nnz_kernels.cuda.launcher import Arguments, Dim, Product
from nnz_kernels.cuda.registry import Kernel
from nnz_kernels.cuda.source import module_source

#: Bytes before and behind each allocation that a kernel must leave alone.
GUARD = 256
_MARK = 0x5A


def missing() -> str:
    """Say what this machine lacks to emulate; nothing if all is there."""
    if platform.machine() != "x86_64":
        return "an x86-64 processor"
    return "" if building.COMPILER else "g++"


FORWARD, REVERSE, SHUFFLED = 0, 1, 2


class EmulationError(AssertionError):
    """A kernel waited for ever, met wrongly, or wrote where it must not."""


class HostMemory:
    """Memory of the emulated device, between guards; NaN or -1 until written."""

    stream = None

    def __init__(self, nbytes: int, guard: int, damaged: list[int]) -> None:
        self.nbytes = nbytes
        self._damaged = damaged
        slack = 64 if guard else 0
        self._raw = np.full(nbytes + 2 * guard + slack, _MARK, np.uint8)
        self._start = guard + -(self._raw.ctypes.data + guard) % 64 if guard else 0
        self.address = self._raw.ctypes.data + self._start
        self._raw[self._start : self._start + nbytes] = 0xFF

    def __del__(self) -> None:
        if not self.is_intact():
            self._damaged.append(self.nbytes)

    def is_intact(self) -> bool:
        """Whether nothing was written outside of it."""
        before, after = self._raw[: self._start], self._raw[self._start + self.nbytes :]
        return bool((before == _MARK).all() and (after == _MARK).all())


class Emulator:
    """One emulated device.

    Args:
        folder: Where compiled modules are kept.
        order: In which order blocks and threads run.
        sanitize: Whether to compile with AddressSanitizer, whose runtime must then be
            in the process.
        change: An error to plant. Each kernel that it touches is compiled by itself,
            when it is launched: few are before the error shows.
    """

    name = "emulator"
    processors = 4

    def __init__(
        self,
        folder: Path,
        order: int = FORWARD,
        sanitize: bool = False,
        change: Change | None = None,
    ) -> None:
        self.order = order
        self.launches: dict[str, int] = {}
        self._folder = folder
        self._flags = (*building.FLAGS, *(building.SANITIZER if sanitize else ()))
        self._change = change
        self._libraries: dict[str, ctypes.CDLL] = {}
        self._lock = threading.RLock()
        # AddressSanitizer watches the ends of each allocation itself.
        self._guard = 0 if sanitize else GUARD
        self._damaged: list[int] = []
        self._held: weakref.WeakSet[HostMemory] = weakref.WeakSet()
        self._recording: list[Callable[[], None]] | None = None

    def allocate(self, nbytes: int) -> HostMemory:
        """Take memory between guards."""
        made = HostMemory(nbytes, self._guard, self._damaged)
        self._held.add(made)
        return made

    def check_guards(self) -> None:
        """Raise EmulationError if a kernel wrote outside of what it was given."""
        held = [memory.nbytes for memory in self._held if not memory.is_intact()]
        if held or self._damaged:
            raise EmulationError(f"written outside of {held + self._damaged} bytes")

    def memory(self) -> tuple[int, int]:
        """Return plenty."""
        return 1 << 34, 1 << 34

    def upload(self, host: HostArray, address: int) -> None:
        """Copy in."""
        with self._lock:
            assert self._recording is None, "an upload cannot be recorded"
            ctypes.memmove(address, host.ctypes.data, host.nbytes)

    def download(self, address: int, host: HostArray) -> None:
        """Copy out."""
        with self._lock:
            assert self._recording is None, "a download cannot be recorded"
            ctypes.memmove(host.ctypes.data, address, host.nbytes)

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copy on the device."""
        self._do(lambda: ctypes.memmove(target, source, nbytes))

    def zero(self, address: int, nbytes: int) -> None:
        """Write zeros."""
        self._do(lambda: ctypes.memset(address, 0, nbytes))

    def prepare(
        self, kernel: Kernel, grid: Dim, block: Dim, arguments: Arguments
    ) -> Callable[[], None]:
        """Return a call that emulates the launch."""
        assert max(grid[1:]) <= 65535, f"{kernel}: grid {grid}"
        assert np.prod(block) <= 1024, f"{kernel}: block {block}"
        number = registry.of_module(kernel.module).index(kernel)
        run = getattr(self._library(kernel), f"launch_{number}")
        run.restype = ctypes.c_char_p
        sizes = (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block)

        def launch() -> None:
            with self._lock:
                error = run(*sizes, self.order, arguments)
                count = self.launches.get(kernel.expression, 0)
                self.launches[kernel.expression] = count + 1
            if error is not None:
                raise EmulationError(f"{kernel.expression}: {error.decode()}")

        return lambda: self._do(launch)

    @property
    def has_products(self) -> bool:
        """NumPy has them."""
        return True

    def product(self, product: Product) -> Callable[[], None]:
        """Return a product of NumPy."""
        rows, columns, depth = product.rows, product.columns, product.depth
        kind = PRECISIONS[product.precision][0]
        a = _matrix(kind, product.a, rows, depth, depth)
        b = _matrix(kind, product.b, depth, columns, product.pitch)
        c = _matrix(np.dtype(np.float32), product.c, rows, columns, product.pitch)

        def multiply() -> None:
            c[...] = _wide(a, product.precision) @ _wide(b, product.precision)

        return lambda: self._do(multiply)

    def capture(self, calls: Callable[[], None]) -> Callable[[], None]:
        """Record calls, and return them as one."""
        recorded: list[Callable[[], None]] = []
        with self._lock:
            self._recording = recorded
            try:
                calls()
            finally:
                self._recording = None

        def replay() -> None:
            for call in recorded:
                call()

        return replay

    def synchronize(self) -> None:
        """Do nothing: every call has ended."""

    def describe(self) -> dict[str, Any]:
        """Say what it is."""
        return {"name": self.name, "compute_capability": "9.0"}

    def _do(self, call: Callable[[], Any]) -> None:
        with self._lock:
            if self._recording is None:
                call()
            else:
                self._recording.append(call)

    def _library(self, kernel: Kernel) -> ctypes.CDLL:
        change, key = self._change, kernel.module
        kernels, text = registry.of_module(key), module_source(key, building.PTX)
        if change is not None and change.touches(kernel):
            key, kernels, text = kernel.expression, (kernel,), change.made()
        elif change is not None and self._flags != building.FLAGS:
            # What is so compiled is no part of what others need.
            key, kernels = kernel.expression, (kernel,)
        with self._lock:
            if key not in self._libraries:
                self._libraries[key] = building.load(
                    kernels, text, self._flags, self._folder
                )
            return self._libraries[key]


def _matrix(
    dtype: np.dtype[Any], address: int, rows: int, columns: int, pitch: int
) -> HostArray:
    """Return memory of the device as a matrix."""
    count = (rows - 1) * pitch + columns
    raw = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
    flat = np.frombuffer(raw, dtype)
    strides = (pitch * dtype.itemsize, dtype.itemsize)
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), strides)


def _wide(values: HostArray, precision: str) -> HostArray:
    if precision == "bf16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)
