"""Dense products of cuBLAS, called so that a graph can record them.

CuPy refuses its own binding while a stream is recorded, since the workspace of a
handle might be allocated then. Here the handle belongs to one stream, and its workspace
is given to it beforehand.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable

from nnz_kernels.cuda.array import Memory
from nnz_kernels.cuda.launcher import Product
from nnz_kernels.errors import DeviceError, DeviceMemoryError

#: Bytes of workspace that NVIDIA recommends for Hopper, enough for the others.
WORKSPACE = 32 << 20

#: cudaDataType_t of each precision, cublasComputeType_t, cublasGemmAlgo_t, and the
#: status of a failed allocation.
_TYPES = {"fp32": 0, "fp16": 2, "bf16": 14}
_COMPUTE_FP32, _DEFAULT_ALGORITHM, _ALLOC_FAILED = 68, -1, 3


def find() -> ctypes.CDLL | None:
    """Return the library, from the wheels beside CuPy or from the system; or None."""
    with contextlib.suppress(Exception):  # its own errors, and those of the loader
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    for name in ("libcublas.so.13", "libcublas.so.12"):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    return None


class Cublas:
    """One handle on one stream; calls come one at a time.

    Args:
        library: What `find` returned.
        stream: The stream's address.
        workspace: Memory for its kernels, kept as long as the handle.

    Raises:
        DeviceError: It does not start.
    """

    def __init__(self, library: ctypes.CDLL, stream: int, workspace: Memory) -> None:
        self._library, self._workspace = library, workspace
        self._handle = ctypes.c_void_p()
        self._ask("cublasCreate_v2", ctypes.byref(self._handle))
        self._ask("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        where, size = ctypes.c_void_p(workspace.address), ctypes.c_size_t(WORKSPACE)
        self._ask("cublasSetWorkspace_v2", self._handle, where, size)

    def product(self, product: Product) -> Callable[[], None]:
        """Return a product that can be repeated.

        cuBLAS stores matrices by column, so it computes the transposed product of the
        transposed operands, which lie as the row-major ones do.
        """
        kind, single = _TYPES[product.precision], _TYPES["fp32"]
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        a, b, c = (ctypes.c_void_p(at) for at in (product.a, product.b, product.c))
        arguments = (
            self._handle, 0, 0, product.columns, product.rows, product.depth,
            ctypes.byref(one), b, kind, product.pitch, a, kind, product.depth,
            ctypes.byref(zero), c, single, product.pitch, _COMPUTE_FP32,
            _DEFAULT_ALGORITHM,
        )  # fmt: skip
        return lambda: self._ask("cublasGemmEx", *arguments)

    def _ask(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status == _ALLOC_FAILED:
            raise DeviceMemoryError(f"{name}: no memory left")
        if status:
            raise DeviceError(f"{name} failed with cublasStatus_t {status}")
