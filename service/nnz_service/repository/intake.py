"""Have a process apart read an untrusted file: only it crashes, hangs or runs out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import orjson

from nnz_service import logs, usage
from nnz_service.errors import (
    ImpossibleError,
    InvalidMatrixError,
    InvalidModelError,
    ServiceError,
    StorageFullError,
)
from nnz_service.repository.seats import Seats

SECONDS = 300.0  # for one file; the CPU time is bounded by the same number
AT_ONCE = 2  # processes; each may take much memory
_MEMORY_SHARE = 0.75  # of the machine's memory, for all of them together
#: All that a process which reads strangers' files is told: no secret is among it, of
#: ours or of others.
_TOLD = frozenset(
    {
        "HOME", "LANG", "LD_LIBRARY_PATH", "NNZ_FAULTS", "NNZ_FAULTS_SEEN", "NNZ_HOME",
        "NNZ_STRICT", "NNZ_VECTOR_BITS", "PATH", "TMPDIR", "TZ", "VIRTUAL_ENV",
        "XDG_CACHE_HOME",
    }
)  # fmt: skip
_TOLD_BEGINNINGS = ("COVERAGE_", "COV_CORE_", "LC_", "NUMBA_", "PYTHON")
_FAULTS: dict[str, type[ImpossibleError]] = {
    "model": InvalidModelError,
    "matrix": InvalidMatrixError,
}

_seats: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Seats]
_seats = weakref.WeakKeyDictionary()


async def inspect(
    kind: str,
    path: Path,
    *,
    media_type: str,
    out: Path | None,
    owner: str = "",
    seconds: float = SECONDS,
    memory: int | None = None,
) -> dict[str, Any]:
    """Read a file in a process of its own.

    Args:
        kind: `model` or `matrix`.
        path: The file.
        media_type: Of a matrix; raw CSR needs `; header=<bytes of the JSON part>`.
        out: Where a matrix's resident form is written.
        owner: Id of the key that sent it: nobody has all processes at once.
        seconds: Time that it may take.
        memory: Bytes of address space; a share of the machine's memory by default.

    Returns:
        For a model `inputs` and `outputs`; for a matrix `shape`, `nnz`, `dtype`,
        `index_dtype`, `facts`.

    Raises:
        InvalidModelError, InvalidMatrixError: what is wrong with the file, also when
            reading it crashed or took too long.
        UnsupportedModelError: naming every node that cannot run.
        TooLargeError: when it takes more memory than allowed.
    """
    seats = _seats.setdefault(asyncio.get_running_loop(), Seats(AT_ONCE))
    request = {
        "kind": kind,
        "path": str(path),
        "media_type": media_type,
        "out": None if out is None else str(out),
        "seconds": seconds,
        "memory": memory or _default_memory(),
    }
    async with seats.taken(owner):
        return _answer(kind, *await _run(request, seconds))


async def _run(request: dict[str, Any], seconds: float) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nnz_service.intake_main",
        orjson.dumps(request).decode(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=_environment(),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
    except TimeoutError as error:
        fault = _FAULTS[request["kind"]]
        raise fault(f"reading it took longer than {seconds:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode or 0, output


def _answer(kind: str, code: int, output: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(output)
    except orjson.JSONDecodeError:
        logs.logger().warning("intake crashed", kind=kind, code=code)
        how = f"signal {-code}" if code < 0 else f"code {code}"
        why = "it takes too much memory or time" if code == -9 else "it is damaged"
        raise _FAULTS[kind](f"reading it crashed ({how}); {why}") from None
    if "error" not in answer:
        info: dict[str, Any] = answer["info"]
        return info
    error = ServiceError.from_dict(answer["error"])
    if not isinstance(error, StorageFullError) and error.status >= 500:
        raise _FAULTS[kind](f"it cannot be read: {error}")
    raise error


def _default_memory() -> int:
    return int(usage.memory_limit() * _MEMORY_SHARE / AT_ONCE)


def _environment() -> dict[str, str]:
    """What of ours it needs; one thread, since each would reserve address space."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _TOLD or name.startswith(_TOLD_BEGINNINGS)
    }
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
