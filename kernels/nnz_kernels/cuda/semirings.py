"""Products over semirings, and of which a mask wants a part; semiring.cu says how."""

from __future__ import annotations

import numpy as np

from nnz_kernels.api.conv import check_steady
from nnz_kernels.api.semirings import SEMIRINGS, check_applied, check_masked
from nnz_kernels.api.sparse import Semiring
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import blocks_of
from nnz_kernels.cuda.family import INDICES, types_of
from nnz_kernels.cuda.sorting import check_count, exclusive_sums, launch_flat
from nnz_kernels.cuda.spgemm import MOST_32, SparseProducts, lanes_of, widened
from nnz_kernels.cuda.transposing import transposed
from nnz_kernels.formats import Csr

#: Rows of a block, as in rows.cuh.
_ROWS = 128

#: What an entry costs that is transposed, in products.
_TURN = 6


class Semirings(SparseProducts):
    """Products over semirings."""

    def semiring_product(
        self,
        a: Csr[DeviceArray],
        b: Csr[DeviceArray],
        semiring: Semiring,
        mask: Csr[DeviceArray] | None = None,
        /,
        *,
        threads: int | None = None,
    ) -> Csr[DeviceArray]:
        """Find columns, then values; or what a mask wants, in whichever way is less."""
        check_masked(a, b, semiring, mask)
        number = SEMIRINGS.index(semiring)
        if mask is None:
            return self._multiplied(a, b, values=True, semiring=number)
        if mask.indices.dtype != a.indices.dtype:
            a, b, mask = (widened(self.device, one) for one in (a, b, mask))
        return self._masked(a, b, number, mask)

    def semiring_spmv(
        self,
        a: Csr[DeviceArray],
        x: DeviceArray,
        semiring: Semiring,
        /,
        *,
        threads: int | None = None,
    ) -> DeviceArray:
        """Launch ``semiring_rows``."""
        check_applied(a, x, semiring)
        check_steady("x", x)
        rows = a.shape[0]
        y = self.device.empty((rows,), a.data.dtype)
        self.device.launch(
            registry.find("semiring_rows", *types_of(a.data, a.indices)),
            (blocks_of(rows, _ROWS), 1, 1), (_ROWS, 1, 1),
            rows, SEMIRINGS.index(semiring), a.indptr, a.indices, a.data, x, y,
        )  # fmt: skip
        return y

    # -- steps ----------------------------------------------------------------------

    def _masked(
        self,
        a: Csr[DeviceArray],
        b: Csr[DeviceArray],
        semiring: int,
        mask: Csr[DeviceArray],
    ) -> Csr[DeviceArray]:
        check_count(mask.nnz, "the mask")
        device, rows, nnz = self.device, a.shape[0], mask.nnz
        types = types_of(a.data, a.indices)
        data = device.empty((nnz,), a.data.dtype)
        found = device.zeros((nnz + 1,), np.int32)
        wanted = mask.indptr, mask.indices, data, found
        left = a.indptr, a.indices, a.data
        if self._is_less_by_dots(a, b, mask):
            turned = transposed(device, b)
            right = turned.indptr, turned.indices, turned.data
            dots = registry.find("masked_dots", *types)
            launch_flat(device, dots, nnz, rows, nnz, semiring, *left, *right, *wanted)
        else:
            right, lanes = (b.indptr, b.indices, b.data), lanes_of(b)
            by_rows = registry.find("masked_rows", *types)
            launch_flat(
                device, by_rows, rows * lanes,
                rows, lanes, semiring, *left, *right, *wanted,
            )  # fmt: skip
        before = exclusive_sums(device, found)
        total = self._at_end(before)
        if total == nnz:
            return Csr(mask.indptr, mask.indices, data, mask.shape)
        out = Csr(
            device.empty((rows + 1,), mask.indptr.dtype),
            device.empty((total,), mask.indices.dtype),
            device.empty((total,), data.dtype),
            mask.shape,
        )
        launch_flat(
            device, registry.find("keep_found", *types), max(nnz, rows + 1),
            rows, nnz, mask.indptr, mask.indices, data, before,
            out.indptr, out.indices, out.data,
        )  # fmt: skip
        return out

    def _is_less_by_dots(
        self, a: Csr[DeviceArray], b: Csr[DeviceArray], mask: Csr[DeviceArray]
    ) -> bool:
        """Compare what both ways take, and what it takes to transpose *b*."""
        if b.nnz > MOST_32:
            return False
        device, index = self.device, INDICES[a.indices.dtype]
        lengths = device.empty((a.nnz + 1,), np.int64)
        count = registry.find("entry_products", index)
        launch_flat(device, count, a.nnz + 1, a.nnz, a.indices, b.indptr, lengths)
        work = device.empty((a.shape[0] + 1,), np.int64)
        measure = registry.find("dot_lengths", index)
        launch_flat(device, measure, work.size, a.shape[0], a.indptr, mask.indptr, work)
        by_rows, by_dots = (
            self._at_end(exclusive_sums(device, each)) for each in (lengths, work)
        )
        return by_dots + _TURN * (b.nnz + sum(b.shape)) < by_rows
