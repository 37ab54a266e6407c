"""Arrays, launches and tables on one device, on top of a `Launcher`."""

from __future__ import annotations

import ctypes
import functools
import math
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nnz_kernels.api.attach import in_turn
from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda.array import DeviceArray, contiguous
from nnz_kernels.cuda.launcher import Dim, Launcher, Product
from nnz_kernels.cuda.registry import Kernel
from nnz_kernels.errors import DeviceLimitError

#: A launch, or several, with their arguments in place.
Call = Callable[[], None]

#: Largest size of a grid along its second and third axis.
MOST_ROWS = 65535

_SCALARS: dict[str, Any] = {
    "i": ctypes.c_int32,
    "l": ctypes.c_int64,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}


class Device:
    """One device; ops of a back-end share it.

    Args:
        launcher: The GPU, or what stands in for it.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        #: Held while a graph is recorded or a plan runs: there is one stream.
        self.turn = threading.RLock()
        self._empty = launcher.allocate(256)
        self._recording = threading.local()

    # -- arrays ---------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Take an array of any content.

        Raises:
            DeviceMemoryError: There is no room for it.
        """
        kind = np.dtype(dtype)
        strides = contiguous(shape, kind)
        nbytes = math.prod(shape) * kind.itemsize
        memory = self.launcher.allocate(nbytes) if nbytes else self._empty
        return DeviceArray(memory, 0, kind, shape, strides)

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Take an array of zeros."""
        made = self.empty(shape, dtype)
        self.zero(made)
        return made

    def zero(self, array: DeviceArray) -> None:
        """Write zeros to an array in C order."""
        if array.nbytes:
            zero = functools.partial(self.launcher.zero, array.address, array.nbytes)
            self.do(functools.partial(_hold, zero, array))

    def to_device(
        self, host: HostArray, target: DeviceArray | None = None
    ) -> DeviceArray:
        """Copy an array to the device, into *target* if there is one."""
        if target is None:
            target = self.empty(host.shape, host.dtype)
        if host.size:
            packed = np.ascontiguousarray(host).astype(target.dtype, copy=False)
            self.launcher.upload(packed, target.address)
        return target

    def to_host(self, array: DeviceArray) -> HostArray:
        """Copy an array to the host, after all that was asked before."""
        # Bytes between elements travel too: that is one copy, whatever the strides.
        if getattr(self._recording, "calls", None) is not None:
            raise RuntimeError("what is being recorded cannot be read from the device")
        if not array.size:
            return np.empty(array.shape, array.dtype)
        if array.is_contiguous:
            found = np.empty(array.shape, array.dtype)
            self.launcher.download(array.address, found)
            return found
        low, high = array.extent
        raw = np.empty(high - low, np.uint8)
        self.launcher.download(array.address + low, raw)
        return np.ndarray(array.shape, array.dtype, raw.data, -low, array.strides)

    def view(
        self,
        memory: DeviceArray,
        offset: int,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> DeviceArray:
        """Return an array in the bytes of another, from *offset* on."""
        start = memory.offset + offset
        return DeviceArray(memory.memory, start, dtype, shape, strides)

    # -- launches -------------------------------------------------------------------

    def prepare(self, kernel: Kernel, grid: Dim, block: Dim, *values: Any) -> Call:
        """Return a launch that can be repeated.

        Args:
            kernel: From the registry.
            grid: Blocks along each axis; a launch without any does nothing.
            block: Threads along each axis.
            values: A `DeviceArray`, None (a null pointer), a number or a
                `ctypes.Structure` for each parameter.
        """
        across, down, deep = grid
        if across < 1 or down < 1 or deep < 1:
            return _nothing
        if down > MOST_ROWS or deep > MOST_ROWS or across >= 2**31:
            raise DeviceLimitError(
                f"{kernel.expression} would need {grid} blocks, more than a grid may "
                "have: use a smaller batch"
            )
        held = [
            _argument(kind, value)
            for kind, value in zip(kernel.signature, values, strict=True)
        ]
        pointers = _pointers(len(held))(*map(ctypes.addressof, held))
        launch = self.launcher.prepare(kernel, grid, block, pointers)
        return functools.partial(_hold, launch, (held, values))

    def launch(self, kernel: Kernel, grid: Dim, block: Dim, *values: Any) -> None:
        """Launch once."""
        self.do(self.prepare(kernel, grid, block, *values))

    def product(self, product: Product, *held: Any) -> Call:
        """Return a dense product that can be repeated; it keeps *held* alive."""
        return functools.partial(_hold, self.launcher.product(product), held)

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        """Copy between arrays of one size in C order."""
        if source.nbytes:
            places = source.address, target.address, source.nbytes
            copy = functools.partial(self.launcher.copy, *places)
            self.do(functools.partial(_hold, copy, (source, target)))

    def record(self, ask: Callable[[], object]) -> Call:
        """Return what *ask* would launch as one call, instead of launching it.

        Arrays that it allocates on its way live as long as the call; it must not read
        from the device.
        """
        calls: list[Call] = []
        outer = getattr(self._recording, "calls", None)
        self._recording.calls = calls
        try:
            ask()
        finally:
            self._recording.calls = outer
        return functools.partial(in_turn, calls)

    def do(self, call: Call) -> None:
        """Make a call, or add it to what is recorded."""
        recording = getattr(self._recording, "calls", None)
        if recording is None:
            call()
        else:
            recording.append(call)

    def capture(self, calls: Sequence[Call]) -> Call:
        """Record calls as one; they must not allocate, nor copy from or to the host."""
        with self.turn:
            replay = self.launcher.capture(functools.partial(in_turn, calls))
        return functools.partial(_hold, replay, tuple(calls))

    def synchronize(self) -> None:
        """Wait until all that was asked is done."""
        self.launcher.synchronize()


class Tables:
    """Constants of the host on a device; of many the one that was asked for longest
    ago goes first, once nothing else holds it.
    """

    def __init__(self, device: Device, most: int = 512) -> None:
        # Weakly: the device's owner holds these tables.
        self._device = weakref.proxy(device)
        self._held: dict[Any, DeviceArray] = {}
        self._most = most
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], HostArray]) -> DeviceArray:
        """Return the table of a key, made and uploaded when it is first asked for."""
        with self._lock:
            found = self._held.pop(key, None)
            if found is None:
                found = self._device.to_device(make())
            self._held[key] = found
            while len(self._held) > self._most:
                del self._held[next(iter(self._held))]
            return found


def blocks_of(count: int, each: int) -> int:
    """Return how many runs of *each* hold *count*."""
    return -(-count // each)


@functools.cache
def _pointers(count: int) -> type[ctypes.Array[ctypes.c_void_p]]:
    """Return the type of so many pointers: to look it up takes as long as a launch."""
    return ctypes.c_void_p * count


def _argument(kind: str, value: Any) -> Any:
    """Return a value as the driver reads it."""
    if kind == "p":
        return ctypes.c_uint64(0 if value is None else value.address)
    if kind[0] == "s":
        if ctypes.sizeof(value) != int(kind[1:]):
            raise TypeError(f"{value} has {ctypes.sizeof(value)} bytes, not {kind}")
        return value
    return _SCALARS[kind](value)


def _hold(call: Call, held: Any) -> None:
    # `held` keeps arguments and arrays alive as long as the call can be made.
    call()


def _nothing() -> None:
    """Do nothing: the launch of an empty grid."""
