"""The intake process: reads one untrusted file under limits, answers, ends.

Started by `repository.intake` with one argument, a JSON object; the answer is one JSON
object on standard output, `{"info": ...}` or `{"error": ...}`.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import orjson

from nnz_service.confinement import confine
from nnz_service.errors import ServiceError, StorageFullError, TooLargeError


def main() -> None:
    """Read the request from the command line and answer it."""
    request = orjson.loads(sys.argv[1])
    confine(int(request["memory"]), int(request["seconds"]) + 1)
    try:
        read = _read_model if request["kind"] == "model" else _read_matrix
        answer: dict[str, Any] = {"info": read(request)}
    except MemoryError:
        limit = request["memory"]
        error = TooLargeError(f"reading it takes more than {limit} bytes of memory")
        answer = {"error": error.to_dict()}
    except OSError as error:
        lost = StorageFullError if error.errno == errno.ENOSPC else ServiceError
        # Without the path, which is none of the caller's business.
        answer = {"error": lost(error.strerror or type(error).__name__).to_dict()}
    except ServiceError as error:
        answer = {"error": error.to_dict()}
    except Exception as error:
        from nnz_service import logs  # it would take a fifth of the start

        logs.configure("warning", "intake")
        logs.logger().exception("reading failed", kind=request["kind"])
        fault = ServiceError(f"{type(error).__name__}: {error}")
        answer = {"error": fault.to_dict()}
    sys.stdout.buffer.write(orjson.dumps(answer))


def _read_model(request: dict[str, Any]) -> dict[str, Any]:
    from nnz_service import engine

    return engine.inspect(Path(request["path"]))


def _read_matrix(request: dict[str, Any]) -> dict[str, Any]:
    from nnz_service.algebra import files
    from nnz_service.algebra.csr_body import read_csr_body
    from nnz_service.algebra.facts import describe
    from nnz_service.servable import entry_type

    path, media_type = Path(request["path"]), str(request["media_type"])
    if media_type == "application/x-mps":
        return _read_program(request)
    limits = files.Limits(matrix_bytes=int(request["memory"]))
    kind, _, parameter = media_type.partition("; header=")
    if kind == "application/x-nnz-csr":
        arrays, shape = read_csr_body(path, int(parameter or 0))
        made = files.csr_from_triplets if "row" in arrays else files.csr_from_arrays
        matrix = made(**arrays, shape=shape, limits=limits)
    else:
        matrix = files.read_matrix(path, media_type, limits)
    matrix = files.canonical(matrix)
    files.write_resident(matrix, request["out"])
    return {
        "shape": list(matrix.shape),
        "nnz": matrix.nnz,
        "dtype": entry_type(matrix.data.dtype),
        "index_dtype": entry_type(matrix.indices.dtype),
        "facts": describe(matrix),
    }


def _read_program(request: dict[str, Any]) -> dict[str, Any]:
    from nnz_service.algebra.files import Limits
    from nnz_service.algebra.lp.mps import read_mps
    from nnz_service.algebra.lp.storage import write_program
    from nnz_service.servable import datatype

    limits = Limits(matrix_bytes=int(request["memory"]))
    program = read_mps(request["path"], limits)
    write_program(program, request["out"])
    return {
        "shape": list(program.shape),
        "nnz": program.a.nnz,
        "dtype": datatype(program.a.data.dtype),
        "index_dtype": datatype(program.a.indices.dtype),
    }


if __name__ == "__main__":
    main()
