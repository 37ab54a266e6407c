"""Find, probe and load a back-end."""

from __future__ import annotations

import enum
import functools
import importlib
import importlib.util
import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnz_kernels.errors import BackendUnavailableError
from nnz_kernels.hosted import HostedFactors, HostedSaddle, hosted

if TYPE_CHECKING:  # never imported: these lines make mypy compare the twins
    from nnz_kernels import cpu, reference
    from nnz_kernels.api import Kernels
    from nnz_kernels.api.dense import SolverOps
    from nnz_kernels.api.factors import FactorOps
    from nnz_kernels.api.graphs import GraphOps
    from nnz_kernels.api.saddle import SaddleOps
    from nnz_kernels.api.sparse import SemiringOps, SparseOps
    from nnz_kernels.arrays import HostArray
    from nnz_kernels.cpu import factors as cpu_factors
    from nnz_kernels.cpu import graphs as cpu_graphs
    from nnz_kernels.cpu import sparse as cpu_sparse
    from nnz_kernels.cuda.array import DeviceArray
    from nnz_kernels.cuda.kernels import CudaKernels
    from nnz_kernels.cuda.launcher import Launcher
    from nnz_kernels.reference import factors as reference_factors
    from nnz_kernels.reference import graphs as reference_graphs
    from nnz_kernels.reference import sparse as reference_sparse

    _reference_factors: FactorOps[HostArray] = reference_factors
    _cpu_factors: FactorOps[HostArray] = cpu_factors
    _reference: Kernels[HostArray] = reference
    _cpu: Kernels[HostArray] = cpu
    _reference_saddle: SaddleOps[HostArray] = reference
    _cpu_saddle: SaddleOps[HostArray] = cpu

    _reference_sparse: SparseOps[HostArray] = reference_sparse
    _cpu_sparse: SparseOps[HostArray] = cpu_sparse
    _reference_semirings: SemiringOps[HostArray] = reference_sparse
    _cpu_semirings: SemiringOps[HostArray] = cpu_sparse
    _reference_graphs: GraphOps = reference_graphs
    _cpu_graphs: GraphOps = cpu_graphs

    def _cuda(made: CudaKernels) -> Kernels[DeviceArray]:
        return made

    def _cuda_sparse(made: CudaKernels) -> SparseOps[DeviceArray]:
        return made

    def _cuda_semirings(made: CudaKernels) -> SemiringOps[DeviceArray]:
        return made

    def _cuda_factors(made: CudaKernels) -> FactorOps[DeviceArray]:
        return made

    def _cuda_saddle(made: CudaKernels) -> SaddleOps[DeviceArray]:
        return made

    def _cuda_solver(made: CudaKernels) -> SolverOps[DeviceArray]:
        return made


class Backend(enum.StrEnum):
    """The places where an op can run."""

    REFERENCE = "reference"  #: numpy, slow and obvious: the truth for tests
    CPU = "cpu"  #: numba, every core
    CUDA = "cuda"  #: CuPy, one device


@dataclass(frozen=True, slots=True)
class Probe:
    """What a look at one back-end found.

    Args:
        backend: Which one.
        available: Whether `load` would succeed.
        reason: Why not, in a sentence; empty when available.
        details: Facts for people: name, threads, vector width, threading layer.
        families: Names of the op families that it has.
    """

    backend: Backend
    available: bool
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    families: tuple[str, ...] = ()


#: Precisions of planes and of the weights of layers.
PRECISIONS = ("fp32", "fp16", "bf16")


def load(backend: Backend, precision: str = "fp32") -> Kernels[Any]:
    """Import one back-end and nothing of the others.

    The device of the CUDA back-end is the first that CUDA_VISIBLE_DEVICES leaves.

    Args:
        backend: Which one.
        precision: One of ``PRECISIONS``; the host's back-ends have fp32 alone.

    Raises:
        BackendUnavailableError: Its library, driver or device is missing, or has not
            this precision.
        ValueError: There is no such precision.
    """
    backend = Backend(backend)
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise ValueError(f"precision {precision!r}: there are {names}")
    if backend is Backend.CUDA:
        kernels = _open_cuda()
        return kernels if precision == "fp32" else kernels.with_precision(precision)
    if precision != "fp32":
        raise BackendUnavailableError(
            f"{backend}: precision {precision!r} needs the back-end cuda"
        )
    try:
        module: Any = importlib.import_module(f"nnz_kernels.{backend}")
    except ImportError as exc:
        raise BackendUnavailableError(f"{backend}: {exc}") from exc
    if backend is Backend.CPU:
        _start_threads()
    # A module has its protocol: the top of this file has it checked.
    return module  # type: ignore[no-any-return]


def load_hosted(backend: Backend) -> Kernels[HostArray]:
    """Import a back-end on NumPy arrays; the host does what a device has no room for.

    Raises:
        BackendUnavailableError: Its library, driver or device is missing.
    """
    return hosted(load(backend), lambda: load(Backend.CPU))


def load_sparse(backend: Backend) -> SparseOps[HostArray]:
    """Import the ops between sparse matrices, on NumPy arrays wherever they run.

    Raises:
        BackendUnavailableError: Its library, driver or device is missing.
    """
    if backend is Backend.CUDA:
        made: SparseOps[HostArray] = _sparse_on_device()
        return made
    if backend is Backend.REFERENCE:
        from nnz_kernels.reference import sparse as plain

        return plain
    load(Backend.CPU)
    from nnz_kernels.cpu import sparse as fast

    return fast


def _sparse_on_device() -> Any:
    """Return ops of a device: `hosted` has what its argument has."""
    return hosted(_open_cuda(), lambda: load_sparse(Backend.CPU))


def load_semirings(backend: Backend) -> SemiringOps[HostArray]:
    """Import products over semirings, on NumPy arrays wherever they run.

    Raises:
        BackendUnavailableError: Its library, driver or device is missing.
    """
    if backend is Backend.CUDA:
        made: SemiringOps[HostArray] = _sparse_on_device()
        return made
    if backend is Backend.REFERENCE:
        from nnz_kernels.reference import sparse as plain

        return plain
    load(Backend.CPU)
    from nnz_kernels.cpu import sparse as fast

    return fast


def load_graphs(backend: Backend) -> GraphOps:
    """Import steps of graph algorithms; of the host, for a device has none.

    Raises:
        BackendUnavailableError: Its library is missing.
    """
    if backend is Backend.REFERENCE:
        from nnz_kernels.reference import graphs as plain

        return plain
    load(Backend.CPU)
    from nnz_kernels.cpu import graphs as fast

    return fast


def load_saddle(backend: Backend) -> SaddleOps[HostArray]:
    """Import the iterations of linear programming, on NumPy arrays wherever they run.

    A device keeps the program of the last call, so each solve loads its own.

    Raises:
        BackendUnavailableError: Its library, driver or device is missing.
    """
    if backend is Backend.CUDA:
        return HostedSaddle(_open_cuda(), lambda: load(Backend.CPU))
    module: Any = load(backend)  # `Kernels` lacks these
    # A module has its protocol: the top of this file has it checked.
    return module  # type: ignore[no-any-return]


def probe(backend: Backend) -> Probe:
    """Look whether *backend* can run here; a device is asked once per process."""
    backend = Backend(backend)
    if backend is Backend.CUDA:
        return _probe_cuda()
    try:
        kernels = load(backend)
        details = _describe_cpu() if backend is Backend.CPU else {"name": "numpy"}
    except BackendUnavailableError as exc:
        return Probe(backend, False, str(exc))
    return Probe(backend, True, "", details, kernels.FAMILIES)


def choose(name: str) -> Backend:
    """Return a back-end by its name; ``auto`` is CUDA if it can be used, else the CPU.

    Raises:
        ValueError: There is no such back-end.
    """
    if name == "auto":
        return Backend.CUDA if probe(Backend.CUDA).available else Backend.CPU
    return Backend(name)


def use_cache(folder: str | os.PathLike[str]) -> None:
    """Keep compiled CPU kernels in *folder*; call it before the first `load`.

    Without it, and without NUMBA_CACHE_DIR, they go to the user's cache folder.
    """
    os.environ["NUMBA_CACHE_DIR"] = os.fspath(folder)


def release_idle(seconds: float = 0.0) -> None:
    """Give the system the memory of results that nobody has held for so long.

    A process that computes on the CPU keeps up to 512 MiB of it for the next results.
    """
    # Only who computed on the CPU has any, and only for them numba is there already.
    if (found := sys.modules.get("nnz_kernels.cpu.recycled")) is not None:
        found.RECYCLER.release(seconds)


def choices_folder() -> Path | None:
    """Return where measured choices of kernels belong: beside the compiled ones."""
    folder = os.environ.get("NUMBA_CACHE_DIR")
    return Path(folder) / "choices" if folder else None


def _start_threads() -> None:
    from nnz_kernels.cpu import _runtime

    _runtime.start_threads()


def _describe_cpu() -> dict[str, Any]:
    from nnz_kernels.cpu import _runtime

    return {
        "name": _runtime.cpu_name(),
        "threads": _runtime.thread_count(),
        "vector_width": 32 * _runtime.vector_floats(),
        "threading_layer": _runtime.threading_layer(),
    }


@functools.cache
def _probe_cuda() -> Probe:
    try:
        kernels = _open_cuda()
    except BackendUnavailableError as exc:
        return Probe(Backend.CUDA, False, str(exc).removeprefix("cuda: "))
    details = kernels.device.launcher.describe()
    return Probe(Backend.CUDA, True, "", details, kernels.FAMILIES)


def load_factors(backend: Backend) -> FactorOps[HostArray]:
    """Import the factorisations of a back-end, on NumPy arrays wherever they run.

    A device keeps the last two triangles, so each preconditioner loads its own.

    Raises:
        BackendUnavailableError: Its library, driver or device is missing.
    """
    if backend is Backend.CUDA:
        return HostedFactors(_open_cuda(), lambda: load_factors(Backend.CPU))
    if backend is Backend.REFERENCE:
        from nnz_kernels.reference import factors as plain

        return plain
    load(Backend.CPU)
    from nnz_kernels.cpu import factors as fast

    return fast


def load_solver(backend: Backend) -> SolverOps[Any] | None:
    """Import what iterative methods need to stay on a device; None is the host.

    Raises:
        BackendUnavailableError: Its library, driver or device is missing.
    """
    return _open_cuda() if backend is Backend.CUDA else None


#: Held while the device is opened: two would each take all of its memory.
_OPENING = threading.Lock()


def _open_cuda() -> CudaKernels:
    """Return the device's kernels, opened by whoever comes first."""
    with _OPENING:
        return _opened()


@functools.cache
def _opened() -> CudaKernels:
    """Open the device and let it prove itself: once a process, if it succeeds.

    Raises:
        BackendUnavailableError: Library, driver, device, compiler or headers are
            missing, or it computes wrongly.
    """
    if os.environ.get("NNZ_NO_CUDA", "") not in ("", "0"):
        raise BackendUnavailableError("cuda: switched off by NNZ_NO_CUDA")
    from nnz_kernels.cuda.device import Device
    from nnz_kernels.cuda.health import check_device
    from nnz_kernels.cuda.kernels import CudaKernels

    try:
        kernels = CudaKernels(Device(_launcher()))
        check_device(kernels)
    except Exception as exc:  # any failure of a foreign library means: not here
        why = str(exc) if isinstance(exc, BackendUnavailableError) else _named(exc)
        raise BackendUnavailableError(f"cuda: {why}") from exc
    return kernels


def _launcher() -> Launcher:
    if importlib.util.find_spec("cupy") is None:
        raise BackendUnavailableError("the package cupy is not installed")
    from nnz_kernels.cuda.cupy_launcher import CupyLauncher

    return CupyLauncher()


def _named(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"
