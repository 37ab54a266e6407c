"""A process that runs HiGHS for us: what it is told, what it answers, how it ends."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_service import scratch
from nnz_service.algebra.lp.model import LinearProgram
from nnz_service.errors import ServiceError, StorageFullError, TooLargeError

Task = Literal["solve", "presolve", "postsolve"]

_CHILD = "nnz_service.algebra.lp.highs_child"

#: What the complaints of a process hold when memory ran out: of C++, of Python.
_NO_MEMORY = (b"bad_alloc", b"MemoryError", b"cannot allocate memory")

#: Seconds of CPU time that a process may take where nobody sets a limit; and what it
#: may take beyond a limit, to start, to load and to write.
DAY, GRACE = 86_400, 10.0


class CpuTimeError(ServiceError):
    """The process took all the CPU time that it may."""


def is_installed() -> bool:
    """Whether HiGHS can be run here."""
    return importlib.util.find_spec("highspy") is not None


class HighsProcess:
    """One task at work.

    Args:
        task: What to do.
        given: Arrays that it needs, by name; see `highs_child`.
        memory: Bytes of address space that it may take; None for no bound.
        limit: Seconds that the task may take, after which and `GRACE` the kernel ends
            the process even if nobody looks; None for a `DAY`.
        clock: Seconds that never go back.

    Raises:
        StorageFullError: There is no room for what it is given.
        ServiceError: It cannot be started.
    """

    def __init__(
        self,
        task: Task,
        given: Mapping[str, Any],
        memory: int | None = None,
        limit: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory, self._clock = memory, clock
        self._cpu = DAY if limit is None else math.ceil(min(limit + GRACE, 2**31))
        self._began = clock()
        self._folder = scratch.folder("nnz-highs-")
        self.folder = Path(self._folder.name)
        try:
            self.process = self._started(task, given)
        except OSError as exc:
            self._folder.cleanup()
            kind = StorageFullError if exc.errno == errno.ENOSPC else ServiceError
            raise kind(f"HiGHS cannot be started: {exc}") from exc

    def _started(self, task: Task, given: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        with (self.folder / "given.npz").open("wb") as file:
            np.savez(file, **given)
        command = [sys.executable, "-m", _CHILD, task, self._folder.name]
        bounds = map(str, (self._memory or 0, self._cpu, os.getpid()))
        with (self.folder / "complaints").open("wb") as complaints:
            return subprocess.Popen(  # noqa: S603 - our own module
                [*command, *bounds],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                env=_environment(),
            )

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._began

    def wait(self, seconds: float) -> dict[str, HostArray] | None:
        """Wait for about that long; return the answer when it is there.

        Raises:
            TooLargeError: It ran out of the memory that it may take.
            CpuTimeError: It ran out of CPU time.
            ServiceError: It crashed, or wrote nothing that can be read.
        """
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        path = self.folder / "answer.npz"
        if code != 0 or not path.is_file():
            raise self._failure(code)
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as exc:
            raise ServiceError(f"the answer of HiGHS cannot be read: {exc}") from exc

    def close(self) -> None:
        """End it, if it still runs, and remove its files."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self._folder.cleanup()

    def _failure(self, code: int) -> ServiceError:
        if code == -signal.SIGXCPU:
            return CpuTimeError(f"HiGHS used up {self._cpu} s of CPU time")
        complaints = (self.folder / "complaints").read_bytes()
        if self._memory and any(word in complaints for word in _NO_MEMORY):
            return TooLargeError(
                f"HiGHS needs more than the {self._memory} bytes of memory that its "
                "process may take (NNZ_LP_BYTES); try the method pdhg without presolve"
            )
        how = f"signal {-code}" if code < 0 else f"code {code}"
        return ServiceError(f"HiGHS crashed ({how}); try the method pdhg")


def arrays_of(program: LinearProgram) -> dict[str, Any]:
    """Return a program to minimize as the process expects it."""
    lp = program
    return {
        "indptr": np.asarray(lp.a.indptr, np.int32),
        "indices": np.asarray(lp.a.indices, np.int32),
        "data": lp.a.data,
        "c": lp.sign * lp.c,
        "lc": lp.lc,
        "uc": lp.uc,
        "lv": lp.lv,
        "uv": lp.uv,
    }


def _environment() -> dict[str, str]:
    """What the process is told: one thread, and where Python finds things."""
    kept = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR")
    told: dict[str, Any] = {n: os.environ[n] for n in kept if n in os.environ}
    return told | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
