"""A GPU through CuPy: the only file that imports it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

import cupy
from cupy.cuda import runtime
from cupy.cuda.memory import OutOfMemoryError
from cupy_backends.cuda.api import driver

from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda.array import Memory
from nnz_kernels.cuda.cublas import WORKSPACE, Cublas, find
from nnz_kernels.cuda.launcher import Arguments, Dim, Product
from nnz_kernels.cuda.registry import Kernel
from nnz_kernels.cuda.source import module_source
from nnz_kernels.errors import DeviceError, DeviceLostError, DeviceMemoryError

#: Bytes of a piece of pinned memory through which arrays travel, and how many there
#: are: an upload waits for the one so many before it. Larger arrays go as they are.
STAGE, STAGES = 8 << 20, 4

#: Share of the memory that is free at the start which this process may take.
SHARE = 0.92

#: Errors after which every other call fails too (cudaError_t, CUDA 13): uncorrectable
#: memory, NVLink, contained; illegal address, timeout, a context that is gone,
#: assertion, hardware stack, illegal instruction, misaligned address, address space,
#: program counter, launch failure; unknown.
STICKY = frozenset(
    {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999}
)

_OUT_OF_MEMORY = 2


class Stage:
    """Pinned memory, and when what was in it had been copied."""

    def __init__(self) -> None:
        self.pinned = cupy.cuda.alloc_pinned_memory(STAGE)
        self.copied = cupy.cuda.Event(disable_timing=True)


class PoolMemory:
    """Memory of CuPy's pool, given back with this object."""

    def __init__(self, pointer: Any, nbytes: int, stream: int) -> None:
        self._pointer = pointer
        self.stream = stream
        self.address = int(pointer.ptr)
        self.nbytes = nbytes


class CupyLauncher:
    """One GPU, one stream, one pool of memory.

    Whatever is asked of the stream is asked under a lock: what another thread asked
    while a graph is recorded would become part of it.

    Args:
        number: Of the device, among those that CUDA_VISIBLE_DEVICES leaves.

    Raises:
        DeviceError: CUDA does not start; DeviceLostError if it never will here.
    """

    def __init__(self, number: int = 0) -> None:
        self._number = number
        self._thread = threading.local()
        self._lock = threading.RLock()
        self._compiling: dict[Kernel, threading.Lock] = {}
        self._functions: dict[Kernel, Any] = {}
        self._library = find()
        self._cublas: Cublas | None = None
        with self._guarded("start"):
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._pool = cupy.cuda.MemoryPool()
            free, self._total = runtime.memGetInfo()
            self._limit = int(free * SHARE)
            self._pool.set_limit(size=self._limit)
            self._stages = [Stage() for _ in range(STAGES)]
            self._facts = runtime.getDeviceProperties(number)

    @property
    def stream(self) -> Any:
        """CuPy's stream, for libraries that work between our kernels."""
        return self._stream

    @property
    def name(self) -> str:
        """Name of the device, of driver and compiler."""
        compiler = ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
        name = self._facts["name"].decode()
        return f"{name}-driver{runtime.driverGetVersion()}-nvrtc{compiler}"

    @property
    def processors(self) -> int:
        """How many multiprocessors it has."""
        return int(self._facts["multiProcessorCount"])

    def allocate(self, nbytes: int) -> Memory:
        """Take memory of the pool, which keeps to the limit."""
        try:
            with self._guarded("allocate"), self._stream:
                pointer = self._pool.malloc(nbytes)
                return PoolMemory(pointer, nbytes, self._stream.ptr)
        except DeviceMemoryError:
            free, _ = self.memory()
            raise DeviceMemoryError(
                f"{nbytes} bytes are needed on {self._facts['name'].decode()}, but "
                f"{free} of {self._limit} are free; use a smaller batch or unload "
                "something"
            ) from None

    def memory(self) -> tuple[int, int]:
        """Return the bytes that are left of the limit, and the device's own."""
        return max(self._limit - self._pool.used_bytes(), 0), self._total

    def upload(self, host: HostArray, address: int) -> None:
        """Copy through pinned memory."""
        with self._lock, self._guarded("upload"):
            if host.nbytes > STAGE:
                self._copy(address, host.ctypes.data, host.nbytes, "HostToDevice")
                self._stream.synchronize()
                return
            stage = self._next_stage()
            ctypes.memmove(stage.pinned.ptr, host.ctypes.data, host.nbytes)
            self._copy(address, stage.pinned.ptr, host.nbytes, "HostToDevice")
            stage.copied.record(self._stream)

    def download(self, address: int, host: HostArray) -> None:
        """Copy through pinned memory, and wait."""
        with self._lock, self._guarded("download"):
            if host.nbytes > STAGE:
                self._copy(host.ctypes.data, address, host.nbytes, "DeviceToHost")
                self._stream.synchronize()
                return
            stage = self._next_stage()
            self._copy(stage.pinned.ptr, address, host.nbytes, "DeviceToHost")
            self._stream.synchronize()
            ctypes.memmove(host.ctypes.data, stage.pinned.ptr, host.nbytes)

    def _next_stage(self) -> Stage:
        """Return the stage that was used longest ago, once its copy has left."""
        stage = self._stages.pop(0)
        self._stages.append(stage)
        stage.copied.synchronize()
        return stage

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copy on the device."""
        with self._lock, self._guarded("copy"):
            self._copy(target, source, nbytes, "DeviceToDevice")

    def zero(self, address: int, nbytes: int) -> None:
        """Write zeros."""
        with self._lock, self._guarded("zero"):
            runtime.memsetAsync(address, 0, nbytes, self._stream.ptr)

    def prepare(
        self, kernel: Kernel, grid: Dim, block: Dim, arguments: Arguments
    ) -> Callable[[], None]:
        """Return a launch through the driver, with the arguments as they lie."""
        address = self._function(kernel).kernel.ptr
        return functools.partial(self._launch, kernel, address, grid, block, arguments)

    @property
    def has_products(self) -> bool:
        """Whether cuBLAS can be loaded."""
        return self._library is not None

    def product(self, product: Product) -> Callable[[], None]:
        """Return a product of cuBLAS on the stream."""
        if self._library is None:
            raise DeviceError("cublas: the library is not here")
        with self._lock, self._guarded("cublas"):
            if self._cublas is None:
                workspace = self.allocate(WORKSPACE)
                self._cublas = Cublas(self._library, self._stream.ptr, workspace)
        return functools.partial(self._multiply, self._cublas.product(product))

    def capture(self, calls: Callable[[], None]) -> Callable[[], None]:
        """Record a CUDA graph."""
        with self._lock, self._guarded("capture"), self._stream:
            self._stream.begin_capture(runtime.streamCaptureModeThreadLocal)
            try:
                calls()
            except BaseException:  # whatever it was, the stream must work again
                with contextlib.suppress(Exception):
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()
        return functools.partial(self._replay, graph)

    def synchronize(self) -> None:
        """Wait for the stream."""
        with self._lock, self._guarded("synchronize"):
            self._stream.synchronize()

    def describe(self) -> dict[str, Any]:
        """Return facts for people."""
        facts = self._facts
        return {
            "name": facts["name"].decode(),
            "number": self._number,
            "uuid": _uuid(facts.get("uuid")),
            "memory": int(facts["totalGlobalMem"]),
            "limit": self._limit,
            "processors": self.processors,
            "compute_capability": f"{facts['major']}.{facts['minor']}",
            "driver": int(runtime.driverGetVersion()),
        }

    # -- inside ---------------------------------------------------------------------

    def _function(self, kernel: Kernel) -> Any:
        """Compile one instantiation at its first use; CuPy keeps it on disk."""
        found = self._functions.get(kernel)
        if found is not None:
            return found
        with self._compiling.setdefault(kernel, threading.Lock()):
            if kernel not in self._functions:
                with self._guarded(f"compile {kernel.expression}"):
                    module = cupy.RawModule(
                        code=module_source(kernel.module),
                        options=("--std=c++17",),
                        name_expressions=(kernel.expression,),
                    )
                    try:
                        found = module.get_function(kernel.expression)
                        found.compile()
                    except cupy.cuda.compiler.CompileException as exc:
                        raise DeviceError(f"{kernel.expression}: {exc}") from exc
                    self._functions[kernel] = found
            return self._functions[kernel]

    def _launch(
        self, kernel: Kernel, function: int, grid: Dim, block: Dim, arguments: Arguments
    ) -> None:
        with self._lock, self._guarded(kernel.expression):
            where = ctypes.addressof(arguments)
            driver.launchKernel(function, *grid, *block, 0, self._stream.ptr, where, 0)

    def _multiply(self, ask: Callable[[], None]) -> None:
        with self._lock, self._guarded("cublas"):
            ask()

    def _replay(self, graph: Any) -> None:
        with self._lock, self._guarded("graph"):
            graph.launch(self._stream)

    def _has_entered(self) -> bool:
        """Whether this thread has the device's context; from now on it has."""
        entered = getattr(self._thread, "entered", False)
        self._thread.entered = True
        return bool(entered)

    def _copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        direction = getattr(runtime, f"memcpy{kind}")
        runtime.memcpyAsync(target, source, nbytes, direction, self._stream.ptr)

    def _guarded(self, what: str) -> Guarded:
        """Make the device this thread's, and tell its errors apart."""
        return Guarded(self._enter, what)

    def _enter(self) -> None:
        if runtime.getDevice() != self._number or not self._has_entered():
            runtime.setDevice(self._number)


class Guarded:
    """Tells errors of CUDA apart; a generator would take as long as a launch."""

    __slots__ = ("_enter", "_what")

    def __init__(self, enter: Callable[[], None], what: str) -> None:
        self._enter, self._what = enter, what

    def __enter__(self) -> None:
        """Make the device this thread's."""
        try:
            self._enter()
        except (runtime.CUDARuntimeError, driver.CUDADriverError) as exc:
            raise self._meaning(exc) from exc

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        """Raise what the error means."""
        if isinstance(exc, OutOfMemoryError):
            raise DeviceMemoryError(str(exc)) from exc
        if isinstance(exc, (runtime.CUDARuntimeError, driver.CUDADriverError)):
            raise self._meaning(exc) from exc

    def _meaning(self, exc: Exception) -> DeviceError:
        status = int(cast("Any", exc).status)
        told = f"{self._what}: {exc}"
        if status == _OUT_OF_MEMORY:
            return DeviceMemoryError(told)
        if status in STICKY:
            return DeviceLostError(
                f"{told}; this process cannot use the device any more"
            )
        return DeviceError(told)


def _uuid(raw: object) -> str:
    """Name a device as the driver's tools do; empty where CuPy does not pass it on."""
    if isinstance(raw, bytes) and len(raw) == 16:
        return f"GPU-{UUID(bytes=raw)}"
    return ""
