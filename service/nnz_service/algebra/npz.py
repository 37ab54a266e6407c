"""SciPy's ``save_npz`` files and our own resident form; never a pickle.

Every member's declared size is checked before it is read.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import scipy.sparse
from numpy.lib import format as npy

from nnz_kernels.arrays import HostArray
from nnz_kernels.convert import as_float, csr_from_scipy
from nnz_kernels.errors import KernelError
from nnz_kernels.formats import Csr
from nnz_service.algebra.limits import Limits
from nnz_service.errors import InvalidMatrixError

#: Members of each SciPy format, beside ``format`` and ``shape``.
MEMBERS = {
    "csr": ("indptr", "indices", "data"),
    "csc": ("indptr", "indices", "data"),
    "coo": ("row", "col", "data"),
}
#: Members of one file; SciPy writes five.
_MAX_MEMBERS = 32


def read_npz(path: str | os.PathLike[str], limits: Limits) -> Csr[HostArray]:
    """Return the matrix of a ``scipy.sparse.save_npz`` file: csr, csc or coo.

    Raises:
        InvalidMatrixError: What is wrong with the file.
        TooLargeError: A member declares more than a limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MAX_MEMBERS:
                raise InvalidMatrixError(
                    f"the .npz file has {len(members)} members, the limit is "
                    f"{_MAX_MEMBERS}; scipy.sparse.save_npz writes five"
                )
            limits.check_file(sum(item.file_size for item in members))
            kind = _kind(_member(archive, "format"))
            shape = _shape(_member(archive, "shape"))
            limits.check_declared(*shape, 0)
            arrays = [_member(archive, name) for name in MEMBERS[kind]]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as exc:
        raise InvalidMatrixError(f"this is no intact .npz file: {exc}") from exc
    except (OSError, RuntimeError) as exc:
        raise InvalidMatrixError(f"the .npz file cannot be read: {exc}") from exc
    limits.check_declared(*shape, arrays[2].size)
    try:
        return _assembled(kind, shape, arrays)
    except KernelError as exc:
        raise InvalidMatrixError(f"{kind}: {exc}") from exc


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


def read_resident(path: str | os.PathLike[str]) -> Csr[HostArray]:
    """Return what `write_resident` wrote; any valid .npz in CSR will do."""
    size = 2 * Path(path).stat().st_size + 2**20
    return read_npz(path, Limits(matrix_bytes=2**53, file_bytes=size))


def _member(archive: zipfile.ZipFile, name: str) -> HostArray:
    """Read one array whose header agrees with the declared size."""
    try:
        item = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise InvalidMatrixError(
            f"the .npz file has no member {name!r}; it has "
            f"{sorted(Path(n).stem for n in archive.namelist())[:8]}"
        ) from None
    with archive.open(item) as file:
        shape, dtype = _npy_header(file, name)
        wanted = dtype.itemsize * int(np.prod(shape, dtype=object))
        if dtype.hasobject:
            raise InvalidMatrixError(f"{name} holds pickles, but must hold numbers")
        if wanted > item.file_size:
            raise InvalidMatrixError(
                f"{name} declares {wanted} bytes, but holds {item.file_size} at most"
            )
    with archive.open(item) as file:
        try:
            out: HostArray = npy.read_array(file, allow_pickle=False)
        except ValueError as exc:
            raise InvalidMatrixError(f"{name}: {exc}") from exc
    return out


def _npy_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = npy.read_array_header_1_0(file)
        else:
            shape, _, dtype = npy.read_array_header_2_0(file)
    except ValueError as exc:
        raise InvalidMatrixError(f"{name} is no .npy array: {exc}") from exc
    return shape, dtype


def _kind(member: HostArray) -> str:
    raw = member.item() if member.size == 1 else b""
    kind = raw.decode("latin-1") if isinstance(raw, bytes) else str(raw)
    if kind not in MEMBERS:
        raise InvalidMatrixError(
            f"the sparse format is {kind[:20]!r}, but must be one of {list(MEMBERS)}"
        )
    return kind


def _shape(member: HostArray) -> tuple[int, int]:
    if member.shape != (2,) or member.dtype.kind not in "iu" or (member < 0).any():
        found = member.tolist() if member.size < 8 else f"an array {member.shape}"
        raise InvalidMatrixError(f"shape is {found}, but must be [rows, columns]")
    return int(member[0]), int(member[1])


def _assembled(
    kind: str, shape: tuple[int, int], arrays: list[HostArray]
) -> Csr[HostArray]:
    """Check first, then convert: SciPy's own conversions crash on bad structure."""
    first, second, data = arrays[0], arrays[1], as_float(arrays[2])
    if kind == "coo":
        return _from_coo(shape, first, second, data)
    straight = shape if kind == "csr" else (shape[1], shape[0])
    checked = checked_csr(first, second, data, straight)
    if kind == "csr":
        return checked
    parts = (checked.data, checked.indices, checked.indptr)
    return csr_from_scipy(scipy.sparse.csc_array(parts, shape=shape))


def checked_csr(
    indptr: HostArray, indices: HostArray, data: HostArray, shape: tuple[int, int]
) -> Csr[HostArray]:
    """Return CSR with pointers and indices of one type, or raise a KernelError."""
    if {indptr.dtype, indices.dtype} == {np.dtype(np.int32), np.dtype(np.int64)}:
        indptr, indices = indptr.astype(np.int64), indices.astype(np.int64)
    out = Csr(indptr, indices, data, shape)
    out.check()
    return out


def _from_coo(
    shape: tuple[int, int], rows: HostArray, columns: HostArray, data: HostArray
) -> Csr[HostArray]:
    for name, part, size in (("row", rows, shape[0]), ("col", columns, shape[1])):
        if part.shape != data.shape or part.ndim != 1 or part.dtype.kind != "i":
            raise InvalidMatrixError(
                f"{name} is {part.dtype} of shape {list(part.shape)}, but must be "
                f"integers of shape {list(data.shape)}"
            )
        wrong = (part < 0) | (part >= size)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InvalidMatrixError(
                f"{name}[{at}] is {part[at]}, but must be from 0 to {size - 1}"
            )
    return csr_from_scipy(scipy.sparse.coo_array((data, (rows, columns)), shape=shape))
