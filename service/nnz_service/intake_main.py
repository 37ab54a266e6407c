"""The intake process: reads one untrusted file under limits, answers, ends.

Started by `repository.intake` with one argument, a JSON object; the answer is one JSON
object on standard output, `{"info": ...}` or `{"error": ...}`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import orjson

from nnz_service import logs
from nnz_service.errors import ServiceError, StorageFullError, TooLargeError

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Read the request from the command line and answer it."""
    request = orjson.loads(sys.argv[1])
    _confine(int(request["memory"]), int(request["seconds"]) + 1)
    try:
        read = _read_model if request["kind"] == "model" else _read_matrix
        answer: dict[str, Any] = {"info": read(request)}
    except MemoryError:
        limit = request["memory"]
        error = TooLargeError(f"reading it takes more than {limit} bytes of memory")
        answer = {"error": error.to_dict()}
    except OSError as error:
        lost = StorageFullError if error.errno == errno.ENOSPC else ServiceError
        answer = {"error": lost(f"{type(error).__name__}: {error}").to_dict()}
    except ServiceError as error:
        answer = {"error": error.to_dict()}
    except Exception as error:
        logs.configure("warning", "intake")
        logs.logger().exception("reading failed", kind=request["kind"])
        fault = ServiceError(f"{type(error).__name__}: {error}")
        answer = {"error": fault.to_dict()}
    sys.stdout.buffer.write(orjson.dumps(answer))


def _confine(memory: int, seconds: int) -> None:
    """End with the parent; bound memory, CPU time and written files; dump no core."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, memory),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (bound, bound))
    # Where memory is short for all, this process goes before the worker does.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _read_model(request: dict[str, Any]) -> dict[str, Any]:
    from nnz_service import engine

    return engine.inspect(Path(request["path"]))


def _read_matrix(request: dict[str, Any]) -> dict[str, Any]:
    from nnz_service.algebra import files
    from nnz_service.repository.csr_body import read_csr_body
    from nnz_service.servable import datatype

    path, media_type = Path(request["path"]), str(request["media_type"])
    kind, _, parameter = media_type.partition("; header=")
    if kind == "application/x-nnz-csr":
        arrays, shape = read_csr_body(path, int(parameter or 0))
        matrix = files.csr_from_arrays(**arrays, shape=shape)
    else:
        limits = files.Limits(matrix_bytes=int(request["memory"]))
        matrix = files.read_matrix(path, media_type, limits)
    files.write_resident(matrix, request["out"])
    return {
        "shape": list(matrix.shape),
        "nnz": matrix.nnz,
        "dtype": datatype(matrix.data.dtype),
        "index_dtype": datatype(matrix.indices.dtype),
    }


if __name__ == "__main__":
    main()
