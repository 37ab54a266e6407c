"""Ops between sparse matrices on the device, all but products and triangles.

What a place in the result depends on comes from running sums and binary searches, a
thread an entry, so that no length of rows unbalances anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nnz_kernels.api.conv import check_steady
from nnz_kernels.api.sparse import (
    Norm,
    Selection,
    check_matrix,
    check_sampled,
    check_scales,
    check_sum,
    chosen,
)
from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import blocks_of
from nnz_kernels.cuda.family import INDICES, VALUES, as_int, types_of
from nnz_kernels.cuda.runs import count_runs, fill_runs, sorted_runs
from nnz_kernels.cuda.semirings import Semirings
from nnz_kernels.cuda.sorting import (
    bits_of,
    check_count,
    exclusive_sums,
    launch_flat,
)
from nnz_kernels.cuda.spgemm import MOST_32, converted, widened
from nnz_kernels.cuda.transposing import transposed
from nnz_kernels.cuda.triangles import Triangles
from nnz_kernels.formats import Csr

#: Rows of a block, as in rows.cuh.
_ROWS = 128

#: Entries of a group of lanes, as in sparse.cu.
_DOTS = 4

#: Parts of a reduction at most.
_PARTS = 1024

_BLOCK = (256, 1, 1)


class Sparse(Semirings, Triangles):
    """Ops between sparse matrices."""

    def canonical(self, a: Csr[DeviceArray], /) -> Csr[DeviceArray]:
        """Look first; then sort entries, and add up those of one place."""
        check_matrix(a)
        device, (rows, columns), nnz = self.device, a.shape, a.nnz
        index = INDICES[a.indices.dtype]
        found = device.zeros((1,), np.int32)
        look = registry.find("find_disorder", index)
        launch_flat(device, look, nnz, rows, nnz, a.indptr, a.indices, found)
        if not as_int(device.to_host(found)):
            return a
        check_count(nnz, "a matrix to sort")
        bits = bits_of(columns)
        keys, numbers = device.empty((nnz,), np.uint64), device.empty((nnz,), np.int32)
        pack = registry.find("entry_keys", index)
        launch_flat(
            device, pack, nnz, rows, nnz, bits, a.indptr, a.indices, keys, numbers
        )
        starts = converted(device, a.indptr, np.dtype(np.int64))
        runs = sorted_runs(device, keys, numbers, a.data, bits, None, starts)
        counts = device.zeros((rows + 1,), np.int64)
        count_runs(device, runs, counts)
        ends = exclusive_sums(device, counts)
        total = self._at_end(ends)
        indices = device.empty((total,), a.indices.dtype)
        data = device.empty((total,), a.data.dtype)
        fill_runs(device, runs, ends, indices, data)
        return Csr(converted(device, ends, a.indptr.dtype), indices, data, a.shape)

    def add(
        self,
        alpha: complex,
        a: Csr[DeviceArray],
        beta: complex,
        b: Csr[DeviceArray],
        /,
        *,
        threads: int | None = None,
    ) -> Csr[DeviceArray]:
        """Find which entries of *b* are alone; sums of these say where all go."""
        check_sum(a, b, (alpha, beta))
        check_count(b.nnz, "the second matrix")
        device, rows = self.device, a.shape[0]
        pattern = a.indptr, a.indices, b.indptr, b.indices
        fresh = device.empty((b.nnz + 1,), np.int32)
        find = registry.find("union_new", INDICES[a.indices.dtype])
        launch_flat(device, find, b.nnz + 1, rows, b.nnz, *pattern, fresh)
        before = exclusive_sums(device, fresh)
        total = a.nnz + self._at_end(before)
        if total > MOST_32 and a.indices.dtype.itemsize == 4:
            return self.add(alpha, widened(device, a), beta, widened(device, b))
        out = Csr(
            device.empty((rows + 1,), a.indptr.dtype),
            device.empty((total,), a.indices.dtype),
            device.empty((total,), a.data.dtype),
            a.shape,
        )
        factors = device.to_device(np.array([alpha, beta], a.data.dtype))
        launch_flat(
            device, registry.find("union_fill", *types_of(a.data, a.indices)),
            max(a.nnz + b.nnz, rows + 1), rows, a.nnz, b.nnz, factors,
            a.indptr, a.indices, a.data, b.indptr, b.indices, b.data,
            before, out.indptr, out.indices, out.data,
        )  # fmt: skip
        return out

    def scale(
        self,
        a: Csr[DeviceArray],
        rows: DeviceArray | None,
        columns: DeviceArray | None,
        /,
    ) -> Csr[DeviceArray]:
        """Launch ``scale_entries``."""
        check_scales(a, rows, columns)
        for name, given in (("rows", rows), ("columns", columns)):
            if given is not None:
                check_steady(f"the factors of {name}", given)
        data = self.device.empty(a.data.shape, a.data.dtype)
        launch_flat(
            self.device, registry.find("scale_entries", *types_of(a.data, a.indices)),
            a.nnz, a.shape[0], a.nnz, a.indptr, a.indices, a.data, rows, columns, data,
        )  # fmt: skip
        return replace(a, data=data)

    def submatrix(
        self,
        a: Csr[DeviceArray],
        rows: Selection | None,
        columns: Selection | None,
        /,
    ) -> Csr[DeviceArray]:
        """Take rows; columns are the rows of the transpose."""
        check_matrix(a)
        if rows is not None:
            a = self._taken(a, chosen(rows, a.shape[0], "row"))
        if columns is not None:
            numbers = chosen(columns, a.shape[1], "column")
            turned = self._taken(transposed(self.device, a), numbers)
            a = transposed(self.device, turned)
        return a

    def transpose(
        self,
        a: Csr[DeviceArray],
        /,
        *,
        conjugate: bool = False,
        threads: int | None = None,
    ) -> Csr[DeviceArray]:
        """Sort entries by column."""
        check_matrix(a)
        return transposed(self.device, a, conjugate=conjugate)

    def sddmm(
        self,
        pattern: Csr[DeviceArray],
        x: DeviceArray,
        y: DeviceArray,
        /,
        *,
        threads: int | None = None,
    ) -> Csr[DeviceArray]:
        """Launch ``sampled_dots``: sums are trees over up to 32 lanes."""
        check_sampled(pattern, x, y)
        check_steady("x", x)
        check_steady("y", y)
        nnz, width = pattern.nnz, x.shape[1]
        lanes = next((n for n in (4, 8, 16) if 4 * n >= width), 32)
        data = self.device.empty((nnz,), x.dtype)
        self.device.launch(
            registry.find("sampled_dots", *types_of(x, pattern.indices)),
            (blocks_of(nnz, _DOTS * _BLOCK[0] // lanes), 1, 1), _BLOCK,
            pattern.shape[0], nnz, width, lanes,
            pattern.indptr, pattern.indices, x, y, data,
        )  # fmt: skip
        return replace(pattern, data=data)

    def norm(self, a: Csr[DeviceArray], kind: Norm, /) -> float:
        """Reduce magnitudes, or sums of them, to a few parts that the host joins."""
        check_matrix(a)
        device = self.device
        sizes = device.empty((a.nnz,), np.float64)
        take = registry.find("take_magnitudes", VALUES[a.data.dtype])
        launch_flat(device, take, a.nnz, a.nnz, a.data, sizes)
        largest = self._largest(sizes)
        if kind == "max" or not 0.0 < largest < np.inf:
            return largest
        if kind == "fro":  # squares of numbers up to one do not overflow
            parts = self._reduced(sizes, squares=True, scale=1 / largest)
            return largest * float(np.sqrt(parts.sum()))
        positive = replace(a, data=sizes)
        return self._largest(self.sums(positive, 0 if kind == "1" else 1))

    def sums(self, a: Csr[DeviceArray], axis: int, /) -> DeviceArray:
        """Launch ``row_sums``; columns are the rows of the transpose."""
        check_matrix(a)
        if axis == 0:
            a = transposed(self.device, a)
        rows = a.shape[0]
        out = self.device.empty((rows,), a.data.dtype)
        kernel = registry.find("row_sums", *types_of(a.data, a.indices))
        grid, block = (blocks_of(rows, _ROWS), 1, 1), (_ROWS, 1, 1)
        self.device.launch(kernel, grid, block, rows, a.indptr, a.data, out)
        return out

    def diagonal(self, a: Csr[DeviceArray], /) -> DeviceArray:
        """Launch ``take_diagonal``."""
        check_matrix(a)
        count = min(a.shape)
        out = self.device.empty((count,), a.data.dtype)
        kernel = registry.find("take_diagonal", *types_of(a.data, a.indices))
        launch_flat(self.device, kernel, count, count, a.indptr, a.indices, a.data, out)
        return out

    # -- steps ----------------------------------------------------------------------

    def _taken(self, a: Csr[DeviceArray], rows: Sequence[int]) -> Csr[DeviceArray]:
        """Return the named rows, one below the other."""
        device, count = self.device, len(rows)
        numbers = device.to_device(np.asarray(rows, np.int64))
        lengths = device.empty((count + 1,), np.int64)
        measure = registry.find("taken_lengths", INDICES[a.indices.dtype])
        launch_flat(device, measure, count + 1, count, numbers, a.indptr, lengths)
        ends = exclusive_sums(device, lengths)
        total = self._at_end(ends)
        if total > MOST_32:
            a = widened(device, a)
        indices = device.empty((total,), a.indices.dtype)
        data = device.empty((total,), a.data.dtype)
        launch_flat(
            device, registry.find("take_rows", *types_of(a.data, a.indices)), total,
            count, total, numbers, ends, a.indptr, a.indices, a.data, indices, data,
        )  # fmt: skip
        pointers = converted(device, ends, a.indptr.dtype)
        return Csr(pointers, indices, data, (count, a.shape[1]))

    def _largest(self, sizes: DeviceArray) -> float:
        """Return the largest of magnitudes, NaN if one is; 0 of none."""
        return float(self._reduced(sizes, squares=False).max(initial=0.0))

    def _reduced(
        self, sizes: DeviceArray, *, squares: bool, scale: float = 1.0
    ) -> HostArray:
        """Return parts of a maximum, or of a sum of squares, of scaled magnitudes."""
        n = sizes.size
        parts = self.device.empty((min(blocks_of(n, 1024), _PARTS),), np.float64)
        self.device.launch(
            registry.find("reduce_magnitudes"), (parts.size, 1, 1), _BLOCK,
            n, int(squares), scale, sizes, parts,
        )  # fmt: skip
        return self.device.to_host(parts)
