"""Products of a sparse matrix on the device."""

from __future__ import annotations

import numpy as np

from nnz_kernels.api.conv import check_steady
from nnz_kernels.api.products import check_product
from nnz_kernels.arrays import FLOATS
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import blocks_of
from nnz_kernels.cuda.family import VALUES, types_of
from nnz_kernels.cuda.shapes import UNEVEN, Shapes
from nnz_kernels.cuda.sorting import launch_flat
from nnz_kernels.errors import DeviceLimitError
from nnz_kernels.formats import Csr

#: Rows that differ much are cut into equal pieces from this length on.
LONG = 256

#: Row ends and entries of one piece, as in products.cu.
_ITEMS = 1024

#: Rows of a block of warps, of narrow and of wide products.
_NARROW_ROWS, _WIDE_ROWS = 8, 4

_BLOCK = (256, 1, 1)


class Products(Shapes):
    """Products."""

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


def _check_width(a: Csr[DeviceArray]) -> None:
    """Refuse counters of 32 bits that would pass their end."""
    if a.indices.dtype.itemsize == 4 and a.nnz > 2**31 - 1024:
        raise DeviceLimitError(f"{a.nnz} entries need indices of 64 bits")
