"""Find, probe and load a back-end."""

from __future__ import annotations

import enum
import functools
import importlib
import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnz_kernels.errors import BackendUnavailableError

if TYPE_CHECKING:  # never imported: these lines make mypy compare the twins
    from nnz_kernels import cpu, reference
    from nnz_kernels.api import Kernels
    from nnz_kernels.arrays import HostArray

    _reference: Kernels[HostArray] = reference
    _cpu: Kernels[HostArray] = cpu


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


def load(backend: Backend) -> Kernels[Any]:
    """Import one back-end and nothing of the others.

    Raises:
        BackendUnavailableError: Its library, driver or device is missing.
    """
    backend = Backend(backend)
    if backend is Backend.CUDA:
        raise BackendUnavailableError(f"cuda: {probe(backend).reason}")
    try:
        module: Any = importlib.import_module(f"nnz_kernels.{backend}")
    except ImportError as exc:
        raise BackendUnavailableError(f"{backend}: {exc}") from exc
    # An imported module has no type here; the lines at the head compare it.
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


def use_cache(folder: str | os.PathLike[str]) -> None:
    """Keep compiled CPU kernels in *folder*; call it before the first `load`.

    Without it, and without NUMBA_CACHE_DIR, they go to the user's cache folder.
    """
    os.environ["NUMBA_CACHE_DIR"] = os.fspath(folder)


def choices_folder() -> Path | None:
    """Return where measured choices of kernels belong: beside the compiled ones."""
    folder = os.environ.get("NUMBA_CACHE_DIR")
    return Path(folder) / "choices" if folder else None


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
    """Ask for a device: library, driver, device, compiler, in that order."""
    if os.environ.get("NNZ_NO_CUDA", "") not in ("", "0"):
        return Probe(Backend.CUDA, False, "switched off by NNZ_NO_CUDA")
    if importlib.util.find_spec("cupy") is None:
        return Probe(Backend.CUDA, False, "the package cupy is not installed")
    try:
        details = _ask_device()
    except Exception as exc:  # any failure of a foreign library means: not here
        return Probe(Backend.CUDA, False, f"{type(exc).__name__}: {exc}")
    reason = f"{details['name']} found, but this version has no CUDA kernels"
    return Probe(Backend.CUDA, False, reason, details)


def _ask_device() -> dict[str, Any]:
    """Compile and run one trivial kernel, which also finds missing headers."""
    import cupy

    if cupy.cuda.runtime.getDeviceCount() < 1:
        raise BackendUnavailableError("no CUDA device")
    source = 'extern "C" __global__ void one(int* x) { *x = 1; }'
    out = cupy.zeros(1, dtype=cupy.int32)
    cupy.RawModule(code=source).get_function("one")((1,), (1,), (out,))
    if int(out[0]) != 1:
        raise BackendUnavailableError("a trivial kernel gave a wrong answer")
    facts = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "name": facts["name"].decode(),
        "memory": int(facts["totalGlobalMem"]),
        "driver": int(cupy.cuda.runtime.driverGetVersion()),
    }
