"""Array types, aligned allocation, and the workspace of sparse vectors."""

from __future__ import annotations

import contextlib
import math
import mmap
import secrets
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

HostArray: TypeAlias = npt.NDArray[Any]

#: An array of any back-end: it has dtype, shape, ndim, size and flags as NumPy's do.
AnyArray: TypeAlias = Any

#: Bytes of a cache line; NumPy aligns to 16, which splits every wide load.
ALIGNMENT = 64

#: Bytes of a huge page.
_HUGE = 2 << 20

#: Types of matrix and vector entries that every product takes.
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

#: Types of the entries of a matrix at rest; not every product takes each of them.
ENTRIES = (*FLOATS, np.dtype(np.complex128))

#: Types of indices and row pointers.
INDICES = (np.dtype(np.int32), np.dtype(np.int64))


def aligned_empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
    """Return an uninitialised C-order array whose base address is 64-byte aligned."""
    return _aligned(np.empty, shape, dtype)


def aligned_zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
    """Return a zeroed C-order array whose base address is 64-byte aligned."""
    return _aligned(np.zeros, shape, dtype)


def _aligned(
    allocate: Any, shape: int | tuple[int, ...], dtype: npt.DTypeLike
) -> HostArray:
    sizes = (shape,) if isinstance(shape, int) else shape
    wanted = math.prod(sizes) * np.dtype(dtype).itemsize
    raw = allocate(wanted + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    out: HostArray = raw[start : start + wanted].view(dtype).reshape(sizes)
    return out


def arena(nbytes: int) -> HostArray:
    """Return bytes for many arrays, from 2 MiB on in huge pages of their own.

    A network's planes lie kilobytes apart: with small pages nearly every access would
    miss the first-level table of addresses. From malloc such memory comes in huge pages
    or not, as what was freed before has it, and a network then runs up to a third
    slower.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if nbytes < _HUGE or advice is None:
        return aligned_empty(nbytes, np.uint8)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        pages = mmap.mmap(-1, nbytes + _HUGE, flags=flags)
    except OSError as exc:
        raise MemoryError(f"{nbytes} bytes for one run: {exc.strerror}") from exc
    with contextlib.suppress(OSError):  # a system without them
        pages.madvise(advice)
    raw = np.frombuffer(pages, np.uint8)
    start = -raw.ctypes.data % _HUGE
    return raw[start : start + nbytes]


def blank_stamps(rows: int, cells: int) -> npt.NDArray[np.int64]:
    """Return *rows* rows of stamps that each begin at an epoch nobody can guess."""
    stamps = np.zeros((rows, cells + 1), np.int64)
    for row in stamps:
        row[0] = 2 * secrets.randbelow(2**29)
    return stamps


class Workspace:
    """Scratch that remembers positions of indices; never cleared between calls.

    ``stamps[0]`` is the current epoch, at first a random one. Every other cell holds
    ``epoch << 32 | position``, so one cache line tells whether an index was met in this
    call and where. A call takes a fresh epoch before it writes anything: what an
    interrupted call left behind has an older stamp and is not seen. One call at a time
    may use a workspace.
    """

    __slots__ = ("stamps",)

    def __init__(self) -> None:
        self.stamps: npt.NDArray[np.int64] = blank_stamps(1, 0)[0]

    def reserve(self, cells: int) -> npt.NDArray[np.int64]:
        """Return stamps with room for *cells* cells; growing forgets the old ones."""
        if self.stamps.size < cells + 1:
            self.stamps = blank_stamps(1, cells)[0]
        return self.stamps

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.stamps.nbytes
