"""Has a large matrix factored by a process apart, within a bound of memory.

The process ends with the worker, whatever ends that: the kernel kills it
(`confinement.end_with`). A pipe that it watches would need a thread of it to come round
while SuperLU computes, and does nothing for a process that is stopped. The kernel goes
by the thread that started the process, so that this thread stays until its end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr
from nnz_service import scratch
from nnz_service.algebra.krylov.errand import Errand, Unwanted
from nnz_service.algebra.krylov.method import Ended

_CHILD = "nnz_service.algebra.krylov.lu_child"
#: Processes at once: each may take as much memory as is lent for factors.
_TURN = threading.Lock()
#: Seconds between looks whether anybody still waits for the factors.
_PAUSE = 0.1
#: Of the environment, what Python needs to start.
_KEPT = ("HOME", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")


def factors_apart(
    a: Csr[HostArray], limit: int, errand: Errand | None = None
) -> dict[str, HostArray]:
    """Return what `lu_child.factors` does; blocks.

    Args:
        a: A square float64 matrix.
        limit: Bytes that the process may allocate.
        errand: Whether anybody waits for it; it ends soon after nobody does.

    Raises:
        Ended: It is singular, needs more memory, or (`Unwanted`) nobody waits.
    """
    errand = errand or Errand()
    with _turn(errand), scratch.folder("nnz-lu-") as folder:
        with (Path(folder) / "matrix.npz").open("wb") as file:
            np.savez(file, data=a.data, indices=a.indices, indptr=a.indptr)
        code = _run([folder, str(limit), str(os.getpid())], errand)
        answer = Path(folder) / "answer"
        if not answer.is_dir():
            raise _crashed(a, limit, code)
        found = {
            path.stem: np.load(path, allow_pickle=False) for path in answer.iterdir()
        }
    if "fault" not in found:
        return found
    fault = str(found["fault"])
    if "singular" in fault:
        raise Ended("singular", fault)
    raise _too_much(a, limit)


@contextlib.contextmanager
def _turn(errand: Errand) -> Iterator[None]:
    """Wait for the turn, and have it in the block."""
    while not _TURN.acquire(timeout=_PAUSE):
        if not errand.wanted():
            raise Unwanted
    try:
        with errand.at_work():
            yield
    finally:
        _TURN.release()


def _run(arguments: list[str], errand: Errand) -> int:
    """Run the process to its end and return its code, or end it."""
    with subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", _CHILD, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    ) as process:
        try:
            while errand.wanted():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_PAUSE)
            raise Unwanted
        finally:
            process.kill()  # nothing, once it has ended


def _too_much(a: Csr[HostArray], limit: int) -> Ended:
    return Ended(
        "breakdown",
        f"the factors of {a.shape[0]} rows with {a.nnz} entries take more than {limit} "
        "bytes or an hour while they are made; use an iterative method",
    )


def _crashed(a: Csr[HostArray], limit: int, code: int) -> Ended:
    """Tell what the system ended, where memory is short or its time is over, apart."""
    if code in (-signal.SIGKILL, -signal.SIGXCPU):
        return _too_much(a, limit)
    return Ended("breakdown", f"SuperLU ended with {code}; use an iterative method")


def _environment() -> dict[str, str]:
    """Return the environment of the process: its BLAS has one thread."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
