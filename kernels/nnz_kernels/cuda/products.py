"""Products of a sparse matrix on the device."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

import numpy as np

from nnz_kernels.api.conv import check_steady
from nnz_kernels.api.products import check_product
from nnz_kernels.arrays import FLOATS
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray, Memory
from nnz_kernels.cuda.device import Device, blocks_of
from nnz_kernels.cuda.family import INDICES, VALUES, Family, types_of
from nnz_kernels.cuda.sorting import check_count, launch_flat, sort_pairs
from nnz_kernels.cuda.transposing import transposed
from nnz_kernels.errors import DeviceLimitError
from nnz_kernels.formats import Csr

#: Rows of very different lengths are cut into equal pieces: from this ratio of the
#: longest to the mean on, and from this length on.
UNEVEN, LONG = 8.0, 256

#: Row ends and entries of one piece, as in products.cu.
_ITEMS = 1024

#: Rows of a block of warps, of narrow and of wide products.
_NARROW_ROWS, _WIDE_ROWS = 8, 4

_BLOCK = (256, 1, 1)


@dataclass(slots=True)
class Shape:
    """What is found out about a matrix once.

    Attributes:
        longest: Entries of its longest row.
        order: Its rows, the longest first, where their lengths differ much.
        transposed: Its transpose, from the first transposed product on.
        matrix: Of which that is the transpose; its arrays stay where they are.
    """

    longest: int
    order: DeviceArray | None = None
    transposed: Csr[DeviceArray] | None = None
    matrix: Csr[DeviceArray] | None = None


class Products(Family):
    """Products; what is found out about a matrix lives as long as its indices do."""

    def __init__(self, device: Device, precision: str = "fp32") -> None:
        super().__init__(device, precision)
        # By the memory of indptr, then by where in it the pointers of a matrix lie.
        self._shapes: weakref.WeakKeyDictionary[Memory, dict[object, Shape]] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()

    def spmv(
        self, a: Csr[DeviceArray], x: DeviceArray, /, *, threads: int | None = None
    ) -> DeviceArray:
        """Launch ``spmv_csr``, or ``spmv_merge`` where rows differ much."""
        check_product(a, x, ndim=1, transposed=False, types=FLOATS)
        return self._spmv(a, x)

    def spmv_t(
        self,
        a: Csr[DeviceArray],
        y: DeviceArray,
        /,
        *,
        conjugate: bool = False,
        threads: int | None = None,
    ) -> DeviceArray:
        """Multiply by a transposed copy, made at the first such product."""
        check_product(a, y, ndim=1, transposed=True, types=FLOATS)
        return self._spmv(self._transposed(a), y)

    def spmm(
        self, a: Csr[DeviceArray], x: DeviceArray, /, *, threads: int | None = None
    ) -> DeviceArray:
        """Launch ``spmm_narrow`` up to 16 columns, ``spmm_wide`` beyond."""
        check_product(a, x, ndim=2, transposed=False, types=FLOATS)
        return self._spmm(a, x)

    def spmm_t(
        self,
        a: Csr[DeviceArray],
        y: DeviceArray,
        /,
        *,
        conjugate: bool = False,
        threads: int | None = None,
    ) -> DeviceArray:
        """Multiply by a transposed copy, made at the first such product."""
        check_product(a, y, ndim=2, transposed=True, types=FLOATS)
        return self._spmm(self._transposed(a), y)

    # -- products -------------------------------------------------------------------

    def _spmv(self, a: Csr[DeviceArray], x: DeviceArray) -> DeviceArray:
        check_steady("x", x)
        _check_width(a)
        rows, nnz = a.shape[0], a.nnz
        y = self.device.empty((rows,), a.data.dtype)
        if rows == 0:
            return y
        mean = nnz / rows
        longest = self._shape(a).longest
        if longest >= LONG and longest > UNEVEN * mean:
            self._spmv_merge(a, x, y)
            return y
        lanes = next((n for n in registry.ROW_LANES if 2 * n >= mean), 32)
        kernel = registry.find("spmv_csr", *types_of(a.data, a.indices), lanes)
        launch_flat(
            self.device, kernel, rows * lanes, rows, a.indptr, a.indices, a.data, x, y
        )
        return y

    def _spmv_merge(self, a: Csr[DeviceArray], x: DeviceArray, y: DeviceArray) -> None:
        rows, nnz = a.shape[0], a.nnz
        tiles = blocks_of(rows + nnz, _ITEMS)
        carry_row = self.device.empty((tiles,), np.int64)
        carry = self.device.empty((tiles,), y.dtype)
        merge = registry.find("spmv_merge", *types_of(a.data, a.indices))
        self.device.launch(
            merge, (tiles, 1, 1), _BLOCK,
            rows, nnz, a.indptr, a.indices, a.data, x, y, carry_row, carry,
        )  # fmt: skip
        kernel = registry.find("spmv_carry", VALUES[y.dtype])
        launch_flat(self.device, kernel, tiles, rows, tiles, carry_row, carry, y)

    def _spmm(self, a: Csr[DeviceArray], x: DeviceArray) -> DeviceArray:
        check_steady("x", x)
        _check_width(a)
        rows, k = a.shape[0], x.shape[1]
        y = self.device.empty((rows, k), a.data.dtype)
        if y.size == 0:
            return y
        width = next((n for n in registry.NARROW if n >= k), None)
        if width is not None:
            self.device.launch(
                registry.find("spmm_narrow", *types_of(a.data, a.indices), width),
                (blocks_of(rows, _NARROW_ROWS), 1, 1), (32, _NARROW_ROWS, 1),
                rows, k, a.indptr, a.indices, a.data, x, y,
            )  # fmt: skip
            return y
        each = 4 if k > 64 else 1
        self.device.launch(
            registry.find("spmm_wide", *types_of(a.data, a.indices), each),
            (blocks_of(rows, _WIDE_ROWS), blocks_of(k, 32 * each), 1),
            (32, _WIDE_ROWS, 1),
            rows, k, self._shape(a).order, a.indptr, a.indices, a.data, x, y,
        )  # fmt: skip
        return y

    # -- what is known of a matrix --------------------------------------------------

    def _shape(self, a: Csr[DeviceArray]) -> Shape:
        with self._lock:
            there = self._shapes.setdefault(a.indptr.memory, {})
            key = (a.indptr.offset, a.indptr.shape)
            if key not in there:
                there[key] = self._analyse(a)
            return there[key]

    def _analyse(self, a: Csr[DeviceArray]) -> Shape:
        rows = a.shape[0]
        longest = self.device.zeros((1,), np.uint64)
        keys = self.device.empty((rows,), np.uint64)
        numbers = self.device.empty((rows,), np.int32)
        kernel = registry.find("row_lengths", INDICES[a.indices.dtype])
        launch_flat(self.device, kernel, rows, rows, a.indptr, keys, numbers, longest)
        found = Shape(int(self.device.to_host(longest)[0]))
        if found.longest > UNEVEN * a.nnz / max(rows, 1):
            check_count(rows, "a matrix with uneven rows")
            found.order = sort_pairs(self.device, keys, numbers, 32)[1]
        return found

    def _transposed(self, a: Csr[DeviceArray]) -> Csr[DeviceArray]:
        shape = self._shape(a)
        with self._lock:
            if shape.transposed is None or not _is_same(shape.matrix, a):
                shape.transposed, shape.matrix = transposed(self.device, a), a
            return shape.transposed


def _check_width(a: Csr[DeviceArray]) -> None:
    """Refuse counters of 32 bits that would pass their end."""
    if a.indices.dtype.itemsize == 4 and a.nnz > 2**31 - 1024:
        raise DeviceLimitError(f"{a.nnz} entries need indices of 64 bits")


def _is_same(one: Csr[DeviceArray] | None, other: Csr[DeviceArray]) -> bool:
    """Whether two matrices are the same arrays; *one* keeps its own alive."""
    return (
        one is not None
        and one.shape == other.shape
        and one.indices.address == other.indices.address
        and one.data.address == other.data.address
    )
