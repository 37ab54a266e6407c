"""Our own form of a stored matrix: an uncompressed .npz, whole or in two files.

Matrices that differ in their values alone share the file of one of them for the places:
a file of values names it, by its name in the same folder.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import KernelError
from nnz_kernels.formats import Csr
from nnz_service.algebra.limits import Limits
from nnz_service.algebra.npz import read_members, read_npz
from nnz_service.errors import InvalidMatrixError

_VALUES = "values"
_NAME = re.compile(r"[0-9a-f]{64}")


def write_resident(matrix: Csr[HostArray], path: str | os.PathLike[str]) -> None:
    """Write the form that `read_resident` reads: an uncompressed .npz of the arrays."""
    with Path(path).open("wb") as file:
        np.savez(
            file,
            format=np.array(b"csr"),
            shape=np.array(matrix.shape, np.int64),
            indptr=matrix.indptr,
            indices=matrix.indices,
            data=matrix.data,
        )


def write_values(
    matrix: Csr[HostArray], pattern: str, path: str | os.PathLike[str]
) -> str:
    """Write the values of a matrix whose places another file holds.

    Args:
        matrix: All of it.
        pattern: Name, in the same folder, of the file with the same places.
        path: Where the values go.

    Returns:
        The SHA-256 that a file of the whole matrix would have.
    """
    whole = Path(f"{path}.whole")
    try:
        write_resident(matrix, whole)
        with whole.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    finally:
        whole.unlink(missing_ok=True)
    with Path(path).open("wb") as file:
        np.savez(
            file,
            format=np.array(_VALUES.encode()),
            pattern=np.array(pattern.encode()),
            data=matrix.data,
        )
    return digest


def read_resident(path: str | os.PathLike[str]) -> Csr[HostArray]:
    """Return what was written here; any valid .npz in CSR will do.

    Raises:
        InvalidMatrixError: What is wrong with the file, or that its places are gone.
    """
    path = Path(path)
    members = read_members(path, ("format",), _limits(path))
    if members["format"].item() != _VALUES.encode():
        return read_npz(path, _limits(path))
    members = read_members(path, ("pattern", "data"), _limits(path))
    name = bytes(members["pattern"].item()).decode("latin-1")
    shared = path.parent / name
    if not _NAME.fullmatch(name) or not shared.is_file():
        raise InvalidMatrixError(f"the file with its places, {name[:64]!r}, is gone")
    places = read_npz(shared, _limits(shared))
    out = Csr(places.indptr, places.indices, members["data"], places.shape)
    try:
        out.check()
    except KernelError as exc:
        raise InvalidMatrixError(f"values: {exc}") from exc
    return out


def _limits(path: Path) -> Limits:
    size = 2 * path.stat().st_size + 2**20
    return Limits(matrix_bytes=2**53, file_bytes=size)
