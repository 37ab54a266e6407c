"""A stored program is a stored matrix with vectors beside it; no pickle.

So a program needs no place of its own: its matrix multiplies like any other, and a job
finds costs and bounds with it.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr
from nnz_service.algebra.lp.model import LinearProgram, linear_program
from nnz_service.errors import InvalidMatrixError

VECTORS = ("c", "lc", "uc", "lv", "uv")
_ABOUT = "program"


def write_program(program: LinearProgram, path: str | os.PathLike[str]) -> None:
    """Write what `read_program` reads, and `files.read_resident` its matrix."""
    about: dict[str, Any] = {
        "offset": program.offset,
        "maximize": program.maximize,
        "notes": program.notes,
    }
    with Path(path).open("wb") as file:
        members: dict[str, Any] = {
            "format": np.array(b"csr"),
            "shape": np.array(program.shape, np.int64),
            "indptr": program.a.indptr,
            "indices": program.a.indices,
            "data": program.a.data,
            _ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8),
        }
        np.savez(file, **members, **{n: getattr(program, n) for n in VECTORS})


def read_program(
    path: str | os.PathLike[str], matrix: Csr[HostArray]
) -> LinearProgram | None:
    """Return the program of a stored matrix; None when it is only a matrix.

    Raises:
        InvalidMatrixError: The vectors do not fit the matrix.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{_ABOUT}.npy" not in archive.namelist():
                return None
        with np.load(path, allow_pickle=False) as file:
            vectors = [file[name] for name in VECTORS]
            about = json.loads(file[_ABOUT].tobytes())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as exc:
        raise InvalidMatrixError(f"the stored program is damaged: {exc}") from exc
    return linear_program(
        matrix,
        *vectors,
        offset=float(about["offset"]),
        maximize=bool(about["maximize"]),
        notes=tuple(about["notes"]),
    )
