"""A picture of where the entries of a matrix are, as PNG.

PNG: W3C Recommendation, second edition, 2003; one grey byte a pixel, no filter.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr

#: Pixels of the longer side.
SMALLEST, LARGEST = 16, 2048
#: Entries looked at together, to bound the memory that it takes.
_CHUNK = 1 << 22
#: Grey of one entry in a picture whose fullest cell holds many.
_PALEST = 216


def spy(a: Csr[HostArray], size: int) -> bytes:
    """Draw a matrix: white is empty, and the darker the more entries a cell holds.

    A pixel covers a square of entries, or an entry a square of pixels, so that the
    longer side has at most `size` pixels. Grey falls with the logarithm of the count.
    """
    longer = max(*a.shape, 1)
    cell = -(-longer // size)
    grey = _shades(counts(a, cell))
    zoom = max(1, size // longer)
    return png(np.kron(grey, np.ones((zoom, zoom), np.uint8)))


def counts(a: Csr[HostArray], cell: int) -> NDArray[np.int64]:
    """Count the entries of each square of `cell` rows and columns."""
    height, width = (max(1, -(-extent // cell)) for extent in a.shape)
    out = np.zeros(height * width, np.int64)
    for start in range(0, a.nnz, _CHUNK):
        places = np.arange(start, min(start + _CHUNK, a.nnz))
        rows = np.searchsorted(a.indptr, places, side="right") - 1
        at = rows // cell * width + a.indices[places].astype(np.int64) // cell
        out += np.bincount(at, minlength=out.size)
    return out.reshape(height, width)


def _shades(found: NDArray[np.int64]) -> NDArray[np.uint8]:
    most = found.max(initial=1)
    depth = np.log(np.maximum(found, 1)) / np.log(max(most, 2))
    grey = np.where(most > 1, _PALEST * (1 - depth), 0)
    return np.where(found > 0, np.rint(grey), 255).astype(np.uint8)


def png(grey: NDArray[np.uint8]) -> bytes:
    """Write an image (height, width) of grey bytes as a PNG file."""
    height, width = grey.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each begins with "no filter"
    lines[:, 1:] = grey
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(lines.tobytes(), 6)
    chunks = ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
