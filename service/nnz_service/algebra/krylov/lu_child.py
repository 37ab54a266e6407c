"""The process that factors a large matrix: its memory is bounded, and it may die.

SuperLU cannot say before how much its factors will take, nor be stopped. Started with a
folder that holds ``matrix.npz``, the bytes that it may allocate and the process that
starts it; makes a folder ``answer`` there, an array a file: an archive would take as
long as the factors.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from nnz_service.confinement import confine, end_with

#: Of computing, after which the kernel ends it.
_SECONDS = 3600


def main(folder: Path, limit: int, parent: int) -> None:
    """Factor what lies in the folder."""
    end_with(parent)
    with np.load(folder / "matrix.npz", allow_pickle=False) as file:
        parts = [file[name] for name in ("data", "indices", "indptr")]
    confine(_taken() + limit, _SECONDS)
    n = parts[2].size - 1
    try:
        answer = factors(scipy.sparse.csr_array(tuple(parts), shape=(n, n)).tocsc())
    except RuntimeError as error:
        answer = {"fault": np.array(f"SuperLU: {error}")}
    except MemoryError:
        answer = {"fault": np.array("memory")}
    half = folder / "half"
    half.mkdir()
    for name, array in answer.items():
        np.save(half / f"{name}.npy", array, allow_pickle=False)
    half.rename(folder / "answer")


def _taken() -> int:
    """Return the bytes of address space that this process has already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def factors(a: Any) -> dict[str, Any]:
    """Return both triangles by rows, and the permutations: c[rows] = b, x = z[columns].

    Demmel, Eisenstat, Gilbert, Li and Liu 1999, as SciPy has it, with COLAMD.
    """
    made = scipy.sparse.linalg.splu(a)
    found = {"rows": made.perm_r, "columns": made.perm_c}
    for name in ("L", "U"):
        triangle = getattr(made, name).tocsr()
        triangle.sort_indices()
        for part in ("indptr", "indices", "data"):
            found[f"{name}.{part}"] = getattr(triangle, part)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
