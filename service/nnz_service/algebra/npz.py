"""SciPy's ``save_npz`` files; never a pickle.

Every member's declared size is checked before it is read.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import KernelError
from nnz_kernels.formats import Csr
from nnz_service.algebra.assemble import MEMBERS, assembled
from nnz_service.algebra.limits import Limits
from nnz_service.errors import InvalidMatrixError

#: Members of one file; SciPy writes five.
_MAX_MEMBERS = 32


def read_npz(path: str | os.PathLike[str], limits: Limits) -> Csr[HostArray]:
    """Return the matrix of a ``scipy.sparse.save_npz`` file of any format.

    Raises:
        InvalidMatrixError: What is wrong with the file.
        TooLargeError: A member declares more than a limit.
    """
    head = read_members(path, ("format", "shape"), limits)
    kind, shape = _kind(head["format"]), _shape(head["shape"])
    limits.check_declared(*shape, 0)
    arrays = [*read_members(path, MEMBERS[kind], limits).values()]
    limits.check_declared(*shape, arrays[-1].size)
    try:
        return assembled(kind, shape, arrays)
    except KernelError as exc:
        raise InvalidMatrixError(f"{kind}: {exc}") from exc


def read_members(
    path: str | os.PathLike[str], names: Sequence[str], limits: Limits
) -> dict[str, HostArray]:
    """Return some arrays of a .npz file, in this order; never a pickle.

    Raises:
        InvalidMatrixError: The file is damaged, or a member missing or no array.
        TooLargeError: The members together declare more than the limit.
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
            return {name: _member(archive, name) for name in names}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as exc:
        raise InvalidMatrixError(f"this is no intact .npz file: {exc}") from exc
    except (OSError, RuntimeError) as exc:
        why = getattr(exc, "strerror", None) or exc  # a path is not told
        raise InvalidMatrixError(f"the .npz file cannot be read: {why}") from exc


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
