"""The one place that knows numba's flags, threads, vector width and cache.

Import it before any jitted function of this package is defined.

How a kernel is written here: a module-level *body* with ``@njit(**SERIAL)`` that does
the rows ``start..stop``, called directly when one thread is asked for, and a *driver*
with ``@njit(**PARALLEL)`` that runs ``prange`` over chunks and calls the body. The
number of chunks bounds the number of threads at work, so numba's own thread count is
never changed. What compiled code takes from another file (constants, intrinsics) lives
in a file whose name starts with an underscore; see `_source_hash`.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.metadata
import os
import threading
from pathlib import Path
from typing import Any

import platformdirs

# Numba reads both when it is imported; a caller may set them earlier.
os.environ.setdefault(
    "NUMBA_CACHE_DIR", str(Path(platformdirs.user_cache_dir("nnz")) / "numba")
)
# "threadsafe" lets numba choose tbb or OpenMP, never workqueue, which aborts the
# process when two threads call parallel kernels at once.
os.environ.setdefault("NUMBA_THREADING_LAYER", "threadsafe")


def _preload_tbb() -> bool:
    """Load tbb from its wheel, which is not on the loader's path, for numba to find."""
    try:
        files = importlib.metadata.files("tbb") or []
        for file in files:
            if file.name == "libtbb.so.12":
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
                return True
    except (importlib.metadata.PackageNotFoundError, OSError):
        return False  # numba will look for OpenMP instead
    return False


TBB_PRELOADED = _preload_tbb()

import llvmlite.binding as llvm  # noqa: E402 - numba reads its settings on import
import numba  # noqa: E402 - as above
import numpy as np  # noqa: E402 - as above
from numba.np.ufunc import parallel as _parallel  # noqa: E402 - as above

from nnz_kernels.arrays import HostArray  # noqa: E402 - as above
from nnz_kernels.errors import BackendUnavailableError  # noqa: E402 - as above


def _source_hash() -> str:
    """Return a short hash of the files that compiled code of other files uses."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("_*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


_config: Any = numba.config


def _features() -> dict[str, bool]:
    """Return the features that numba compiles for: its override, or the host's."""
    chosen = _config.CPU_FEATURES
    if chosen is None:
        return dict(llvm.get_host_cpu_features())
    return {name[1:]: name[0] == "+" for name in chosen.split(",") if name}


def vector_floats() -> int:
    """Return the float32 lanes of one vector: 16, 8 or 4.

    As many as a register has, or NNZ_VECTOR_BITS, for tests: LLVM makes several
    registers of a vector that is too long for the machine.

    Raises:
        BackendUnavailableError: NNZ_VECTOR_BITS is not 128, 256 or 512.
    """
    forced = os.environ.get("NNZ_VECTOR_BITS")
    if forced:
        if forced not in ("128", "256", "512"):
            raise BackendUnavailableError(
                f"NNZ_VECTOR_BITS is {forced!r}, but must be 128, 256 or 512"
            )
        return int(forced) // 32
    features = _features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") and features.get("fma") else 4


# Numba looks at the file of a function alone; what it took from another file, the
# length of a vector included, would stay as it was. A folder for each state of those
# files and each length cures it.
_config.CACHE_DIR = str(
    Path(os.environ["NUMBA_CACHE_DIR"]) / f"{_source_hash()}-{32 * vector_floats()}"
)
if _config.THREADING_LAYER == "default":
    _config.THREADING_LAYER = "threadsafe"
if _config.THREADING_LAYER == "workqueue":
    raise BackendUnavailableError(
        "NUMBA_THREADING_LAYER is workqueue, which aborts the process on concurrent "
        "calls; unset it, or set it to tbb, omp or threadsafe"
    )

#: Sums may be reordered into vector lanes and multiply-adds fused. Never ``nnan`` or
#: ``ninf``: a NaN must survive.
FASTMATH = {"reassoc", "contract", "nsz"}

#: Flags of a body and of a driver; add ``fastmath=`` as the kernel needs.
SERIAL: dict[str, Any] = {"cache": True, "nogil": True}
PARALLEL: dict[str, Any] = {"cache": True, "nogil": True, "parallel": True}

#: Multiply-adds below which starting threads costs more than it saves.
GRAIN = 32_768


def cpu_name() -> str:
    """Return the processor that numba compiles for."""
    return _config.CPU_NAME or str(llvm.get_host_cpu_name())


def thread_count(threads: int | None = None, work: int | None = None) -> int:
    """Return how many threads to use.

    Args:
        threads: What the caller asked for; None means all that numba may use.
        work: Multiply-adds of the call; little work is given fewer threads.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}, but must be None or at least 1")
    available = int(_config.NUMBA_NUM_THREADS)
    count = available if threads is None else min(threads, available)
    return count if work is None else max(1, min(count, work // GRAIN))


def threading_layer() -> str:
    """Start numba's threads if need be, and return their layer: tbb or omp.

    Raises:
        BackendUnavailableError: Neither tbb nor OpenMP can be loaded.
    """
    start_threads()
    return str(_parallel.threading_layer())


_STARTING = threading.Lock()


def start_threads() -> None:
    """Start numba's threads, unless they are there.

    Numba starts them with a task of the thread that asks. On a single core nobody else
    runs it, and the end of the process waits for it for ever, in another thread: so it
    is waited for here, which runs it.

    Raises:
        BackendUnavailableError: Neither tbb nor OpenMP can be loaded.
    """
    with _STARTING:
        if _parallel._is_initialized:
            return
        try:
            _parallel._launch_threads()
        except ValueError as exc:
            raise BackendUnavailableError(
                "numba found neither tbb nor OpenMP; install the package tbb"
            ) from exc
        layer = _parallel.threading_layer()
        pool: Any = importlib.import_module(f"numba.np.ufunc.{layer}pool")
        ctypes.CFUNCTYPE(None)(pool.synchronize)()


def readable(x: HostArray) -> HostArray:
    """Return *x* in the one form that kernels are compiled for.

    They take arrays in C order whose numbers are aligned. A read-only one (a mapped
    file, say) is for numba of another type, for which it would compile again: it is
    passed through a view that is marked writable. Kernels never write to their inputs.
    """
    flags = x.flags
    if flags.carray:  # all of it
        return x
    if not flags.c_contiguous or not flags.aligned:
        return np.array(x, order="C")
    return np.asarray(_Writable(x))


class _Writable:
    """Shares the memory of a read-only array and keeps that array alive."""

    def __init__(self, x: HostArray) -> None:
        self._owner = x
        interface = dict(x.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
