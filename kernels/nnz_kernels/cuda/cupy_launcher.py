"""A GPU through CuPy: the only file that imports it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import cupy
from cupy.cuda import runtime
from cupy.cuda.memory import OutOfMemoryError
from cupy_backends.cuda.api import driver

from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import Memory
from nnz_kernels.cuda.launcher import Arguments, Dim, Product
from nnz_kernels.cuda.registry import Kernel
from nnz_kernels.cuda.source import module_source
from nnz_kernels.errors import DeviceError, DeviceLostError, DeviceMemoryError

#: Bytes of pinned memory through which arrays travel; larger ones go as they are.
STAGE = 16 << 20

#: Share of the memory that is free at the start which this process may take.
SHARE = 0.92

#: Errors after which every other call fails too (cudaError_t, CUDA 13): illegal
#: address, timeout, assertion, hardware stack, illegal instruction, misaligned address,
#: address space, program counter, launch failure, uncorrectable memory, contained and
#: other unknown errors.
STICKY = frozenset({214, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 999})

_OUT_OF_MEMORY = 2

#: cudaDataType_t of each precision, cublasComputeType_t and cublasGemmAlgo_t.
_CUBLAS_TYPES = {"fp32": 0, "fp16": 2, "bf16": 14}
_COMPUTE_FP32, _DEFAULT_ALGORITHM = 68, -1


class PoolMemory:
    """Memory of CuPy's pool, given back with this object."""

    def __init__(self, pointer: Any, nbytes: int) -> None:
        self._pointer = pointer
        self.address = int(pointer.ptr)
        self.nbytes = nbytes


class CupyLauncher:
    """One GPU, one stream, one pool of memory.

    Args:
        number: Of the device, among those that CUDA_VISIBLE_DEVICES leaves.

    Raises:
        DeviceError: CUDA does not start; DeviceLostError if it never will here.
    """

    def __init__(self, number: int = 0) -> None:
        self._number = number
        self._thread = threading.local()
        self._lock = threading.RLock()
        self._functions: dict[Kernel, Any] = {}
        with self._guarded("start"):
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._copied = cupy.cuda.Event(disable_timing=True)
            self._pool = cupy.cuda.MemoryPool()
            free, self._total = runtime.memGetInfo()
            self._limit = int(free * SHARE)
            self._pool.set_limit(size=self._limit)
            self._stage = cupy.cuda.alloc_pinned_memory(STAGE)
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
                return PoolMemory(self._pool.malloc(nbytes), nbytes)
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
            self._copied.synchronize()  # what was staged before has left
            ctypes.memmove(self._stage.ptr, host.ctypes.data, host.nbytes)
            self._copy(address, self._stage.ptr, host.nbytes, "HostToDevice")
            self._copied.record(self._stream)

    def download(self, address: int, host: HostArray) -> None:
        """Copy through pinned memory, and wait."""
        with self._lock, self._guarded("download"):
            staged = host.nbytes <= STAGE
            self._copied.synchronize()
            target = self._stage.ptr if staged else host.ctypes.data
            self._copy(target, address, host.nbytes, "DeviceToHost")
            self._stream.synchronize()
            if staged:
                ctypes.memmove(host.ctypes.data, target, host.nbytes)

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copy on the device."""
        with self._guarded("copy"):
            self._copy(target, source, nbytes, "DeviceToDevice")

    def zero(self, address: int, nbytes: int) -> None:
        """Write zeros."""
        with self._guarded("zero"):
            runtime.memsetAsync(address, 0, nbytes, self._stream.ptr)

    def prepare(
        self, kernel: Kernel, grid: Dim, block: Dim, arguments: Arguments
    ) -> Callable[[], None]:
        """Return a launch through the driver, with the arguments as they lie."""
        function = self._function(kernel)
        return functools.partial(
            self._launch, kernel, function.kernel.ptr, grid, block, arguments
        )

    @property
    def has_products(self) -> bool:
        """Whether cuBLAS can be loaded."""
        try:
            from cupy_backends.cuda.libs import cublas
        except ImportError:
            return False
        return cublas is not None

    def product(self, product: Product) -> Callable[[], None]:
        """Return a product of cuBLAS, which sees row-major matrices as transposed."""
        from cupy_backends.cuda.libs import cublas

        with self._guarded("cublas"), self._stream:
            handle = cupy.cuda.device.get_cublas_handle()
        kind = _CUBLAS_TYPES[product.precision]
        one, beta = ctypes.c_float(1), ctypes.c_float(1 if product.adds else 0)
        arguments = (
            0, 0, product.columns, product.rows, product.depth,
            ctypes.addressof(one), product.b, kind, product.pitch,
            product.a, kind, product.depth, ctypes.addressof(beta),
            product.c, kind, product.pitch, _COMPUTE_FP32, _DEFAULT_ALGORITHM,
        )  # fmt: skip
        kept = (one, beta)

        def multiply(kept: object = kept) -> None:
            # cuBLAS works on CuPy's current stream.
            with self._guarded("cublas"), self._stream:
                cublas.gemmEx(handle, *arguments)

        return multiply

    def capture(self, calls: Callable[[], None]) -> Callable[[], None]:
        """Record a CUDA graph."""
        with self._lock, self._guarded("capture"), self._stream:
            self._stream.begin_capture(runtime.streamCaptureModeThreadLocal)
            try:
                calls()
            except BaseException:
                with contextlib.suppress(Exception):
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()
        return functools.partial(self._replay, graph)

    def synchronize(self) -> None:
        """Wait for the stream."""
        with self._guarded("synchronize"):
            self._stream.synchronize()

    def describe(self) -> dict[str, Any]:
        """Return facts for people."""
        facts = self._facts
        return {
            "name": facts["name"].decode(),
            "number": self._number,
            "memory": int(facts["totalGlobalMem"]),
            "limit": self._limit,
            "processors": self.processors,
            "compute_capability": f"{facts['major']}.{facts['minor']}",
            "driver": int(runtime.driverGetVersion()),
        }

    # -- inside ---------------------------------------------------------------------

    def _function(self, kernel: Kernel) -> Any:
        """Compile one instantiation at its first use; CuPy keeps it on disk."""
        with self._lock:
            if kernel not in self._functions:
                with self._guarded(f"compile {kernel.expression}"):
                    module = cupy.RawModule(
                        code=module_source(kernel.module),
                        options=("--std=c++17",),
                        name_expressions=(kernel.expression,),
                    )
                    found = module.get_function(kernel.expression)
                    self._functions[kernel] = found
            return self._functions[kernel]

    def _launch(
        self, kernel: Kernel, function: int, grid: Dim, block: Dim, arguments: Arguments
    ) -> None:
        with self._guarded(kernel.expression):
            where = ctypes.addressof(arguments)
            driver.launchKernel(function, *grid, *block, 0, self._stream.ptr, where, 0)

    def _replay(self, graph: Any) -> None:
        with self._guarded("graph"):
            graph.launch(self._stream)

    def _copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        direction = getattr(runtime, f"memcpy{kind}")
        runtime.memcpyAsync(target, source, nbytes, direction, self._stream.ptr)

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Make the device this thread's, and tell its errors apart."""
        try:
            if not getattr(self._thread, "entered", False):
                runtime.setDevice(self._number)
                self._thread.entered = True
            yield
        except OutOfMemoryError as exc:
            raise DeviceMemoryError(str(exc)) from exc
        except (runtime.CUDARuntimeError, driver.CUDADriverError) as exc:
            status = int(cast("Any", exc).status)
            if status == _OUT_OF_MEMORY:
                raise DeviceMemoryError(f"{what}: {exc}") from exc
            if status in STICKY:
                raise DeviceLostError(
                    f"{what}: {exc}; this process cannot use the device any more"
                ) from exc
            raise DeviceError(f"{what}: {exc}") from exc


def compile_all(launcher: CupyLauncher) -> int:
    """Compile every kernel of the registry, so that no request waits for one."""
    for kernel in registry.KERNELS:
        launcher.prepare(kernel, (1, 1, 1), (1, 1, 1), (ctypes.c_void_p * 1)())
    return len(registry.KERNELS)
