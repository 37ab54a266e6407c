"""Products of two sparse matrices on the device: columns first, then values.

spgemm.cu says how a row goes by the number of columns that it can have.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from nnz_kernels.api.sparse import ProductPlan, ProductSize, check_factors, check_plan
from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import Device, blocks_of
from nnz_kernels.cuda.family import INDICES, Family, as_int, types_of
from nnz_kernels.cuda.runs import Runs, count_runs, fill_runs, sorted_runs
from nnz_kernels.cuda.sorting import (
    bits_of,
    check_count,
    exclusive_sums,
    launch_flat,
    sort_pairs,
)
from nnz_kernels.formats import Csr

#: Columns up to which a row has a table in shared memory, small or large.
FEW, SOME = (cells // 2 for _, cells in registry.HASHES)

#: Products that are sorted at a time: a gigabyte at most.
BATCH = 1 << 24

#: Entries that an index of 32 bits counts.
MOST_32 = 2**31 - 1

_BLOCK = (256, 1, 1)


class Work(NamedTuple):
    """What the rows of a product cost.

    Attributes:
        before: (nnz + 1,), products before each entry of the first factor.
        products: (m + 1,), products of each row; the last is not set.
        bounds: (m + 1,), columns that each row can have; the last is zero.
        rows: (m,), rows by the way they go.
        ways: Where each way begins in that list: nothing to do, two tables, sorting.
    """

    before: DeviceArray
    products: DeviceArray
    bounds: DeviceArray
    rows: DeviceArray
    ways: list[int]


@dataclass(slots=True)
class Product:
    """A product under way.

    Attributes:
        a: The first factor.
        b: The second.
        work: What its rows cost.
        factor: Of the hash; random.
        batches: Sorted products, if they were not too many to keep.
        semiring: That adds and multiplies, by its place among `SEMIRINGS`.
    """

    a: Csr[DeviceArray]
    b: Csr[DeviceArray]
    work: Work
    semiring: int = 0
    factor: int = field(default_factory=lambda: 2 * secrets.randbelow(1 << 62) + 1)
    batches: list[Runs] | None = None

    @property
    def operands(self) -> tuple[DeviceArray, ...]:
        """The arrays of both factors."""
        a, b = self.a, self.b
        return a.indptr, a.indices, a.data, b.indptr, b.indices, b.data

    @property
    def lanes(self) -> int:
        """Threads for a row of the second factor."""
        return lanes_of(self.b)


class SparseProducts(Family):
    """Products of sparse matrices."""

    def product_size(self, a: Csr[DeviceArray], b: Csr[DeviceArray], /) -> ProductSize:
        """Count on the device."""
        check_factors(a, b)
        work = self._work(a, b)
        bound = exclusive_sums(self.device, work.bounds)
        return ProductSize(self._at_end(work.before), self._at_end(bound))

    def product_counts(
        self, a: Csr[DeviceArray], b: Csr[DeviceArray], /, *, threads: int | None = None
    ) -> DeviceArray:
        """Find columns, and keep none."""
        check_factors(a, b)
        return self._counted(Product(a, b, self._work(a, b)))

    def plan_product(
        self, a: Csr[DeviceArray], b: Csr[DeviceArray], /, *, threads: int | None = None
    ) -> ProductPlan[DeviceArray]:
        """Find columns."""
        check_factors(a, b)
        c = self._multiplied(a, b, values=False)
        return ProductPlan(c.indptr, c.indices, c.shape, (a.nnz, b.nnz))

    def planned_product(
        self,
        plan: ProductPlan[DeviceArray],
        a: Csr[DeviceArray],
        b: Csr[DeviceArray],
        /,
        *,
        threads: int | None = None,
    ) -> Csr[DeviceArray]:
        """Find values."""
        check_plan(plan, a, b)
        if plan.indices.dtype != a.indices.dtype:
            a, b = widened(self.device, a), widened(self.device, b)
        product = Product(a, b, self._work(a, b))
        data = self.device.empty((plan.nnz,), a.data.dtype)
        indptr = converted(self.device, plan.indptr, np.dtype(np.int64))
        for runs in self._batches(product):
            fill_runs(self.device, runs, indptr, None, data)
        self._fill_values(product, indptr, plan.indices, data)
        return Csr(plan.indptr, plan.indices, data, plan.shape)

    def spgemm(
        self, a: Csr[DeviceArray], b: Csr[DeviceArray], /, *, threads: int | None = None
    ) -> Csr[DeviceArray]:
        """Find columns, then values."""
        check_factors(a, b)
        return self._multiplied(a, b, values=True)

    def _at_end(self, sums: DeviceArray) -> int:
        """Read the last of some sums."""
        return as_int(self.device.to_host(sums.part(sums.size - 1, sums.size)))

    # -- steps ----------------------------------------------------------------------

    def _multiplied(
        self,
        a: Csr[DeviceArray],
        b: Csr[DeviceArray],
        *,
        values: bool,
        semiring: int = 0,
    ) -> Csr[DeviceArray]:
        device, product = self.device, Product(a, b, self._work(a, b), semiring)
        indptr = self._counted(product)
        nnz = self._at_end(indptr)
        if nnz > MOST_32 and a.indices.dtype.itemsize == 4:
            wide = widened(device, a), widened(device, b)
            return self._multiplied(*wide, values=values, semiring=semiring)
        indices = device.empty((nnz,), a.indices.dtype)
        data = device.empty((nnz,), a.data.dtype)
        for way in (1, 2):
            self._hash(product, way, None, indptr, indices)
        for runs in self._batches(product):
            fill_runs(device, runs, indptr, indices, data, semiring)
        if values:
            self._fill_values(product, indptr, indices, data)
        pointers = converted(device, indptr, a.indices.dtype)
        return Csr(pointers, indices, data, (a.shape[0], b.shape[1]))

    def _work(self, a: Csr[DeviceArray], b: Csr[DeviceArray]) -> Work:
        device, rows, nnz = self.device, a.shape[0], a.nnz
        check_count(rows, "the first matrix, by rows,")
        index = INDICES[a.indices.dtype]
        lengths, products, bounds = (
            device.empty((size,), np.int64) for size in (nnz + 1, rows + 1, rows + 1)
        )
        count = registry.find("entry_products", index)
        launch_flat(device, count, nnz + 1, nnz, a.indices, b.indptr, lengths)
        before = exclusive_sums(device, lengths)
        keys = device.empty((rows,), np.uint64)
        numbers = device.empty((rows,), np.int32)
        launch_flat(
            device, registry.find("row_bounds", index), rows + 1,
            rows, b.shape[1], FEW, SOME, a.indptr, before, products, bounds, keys,
            numbers,
        )  # fmt: skip
        keys, numbers = sort_pairs(device, keys, numbers, 2)
        starts = device.empty((5,), np.int64)
        find = registry.find("find_ways")
        device.launch(find, (1, 1, 1), (32, 1, 1), rows, keys, starts)
        ways = device.to_host(starts).tolist()
        return Work(before, products, bounds, numbers, ways)

    def _counted(self, product: Product) -> DeviceArray:
        """Return the row pointers of the result, int64."""
        counts = self.device.zeros((product.a.shape[0] + 1,), np.int64)
        for way in (1, 2):
            self._hash(product, way, counts, None, None)
        for runs in self._batches(product):
            count_runs(self.device, runs, counts)
        return exclusive_sums(self.device, counts)

    def _hash(
        self,
        product: Product,
        way: int,
        counts: DeviceArray | None,
        indptr: DeviceArray | None,
        out: DeviceArray | None,
    ) -> None:
        """Count the columns of the rows of a way, or write them."""
        work, a, b = product.work, product.a, product.b
        group, cells = registry.HASHES[way - 1]
        first, last = work.ways[way : way + 2]
        kernel = registry.find("hash_columns", INDICES[a.indices.dtype], group, cells)
        self.device.launch(
            kernel, (blocks_of((last - first) * group, 256), 1, 1), _BLOCK,
            last - first, product.lanes, product.factor, work.rows.part(first, last),
            work.bounds, a.indptr, a.indices, b.indptr, b.indices, counts, indptr, out,
        )  # fmt: skip

    def _fill_values(
        self,
        product: Product,
        indptr: DeviceArray,
        indices: DeviceArray,
        data: DeviceArray,
    ) -> None:
        """Add up the values of rows that have tables."""
        work, lanes, first, last = (
            product.work,
            product.lanes,
            *product.work.ways[1:4:2],
        )
        launch_flat(
            self.device,
            registry.find("product_values", *types_of(data, indices)),
            (last - first) * lanes, last - first, lanes, product.semiring,
            work.rows.part(first, last), *product.operands, indptr, indices, data,
        )  # fmt: skip

    def _batches(self, product: Product) -> Iterator[Runs]:
        """Yield the sorted products of rows of many columns; a lone batch is kept."""
        if product.batches is not None:
            yield from product.batches
            return
        device, work = self.device, product.work
        first, last = work.ways[3:5]
        if first == last:
            return
        rows = work.rows.part(first, last)
        lengths = device.empty((rows.size + 1,), np.int64)
        ask = registry.find("list_products")
        launch_flat(device, ask, rows.size + 1, rows.size, rows, work.products, lengths)
        starts = np.concatenate([[0], np.cumsum(device.to_host(lengths)[:-1])])
        cuts = batches_of(starts)
        for start, stop in cuts:
            own = starts[start : stop + 1] - starts[start]
            runs = self._expanded(product, rows.part(start, stop), own)
            if len(cuts) == 1:
                product.batches = [runs]
            yield runs

    def _expanded(self, product: Product, rows: DeviceArray, ends: HostArray) -> Runs:
        device, n, a = self.device, int(ends[-1]), product.a
        check_count(n, "a row of the result, products counted,")
        bits = bits_of(product.b.shape[1])
        keys = device.empty((n,), np.uint64)
        numbers = device.empty((n,), np.int32)
        values = device.empty((n,), a.data.dtype)
        starts = device.to_device(ends)
        device.launch(
            registry.find("expand_products", *types_of(a.data, a.indices)),
            (rows.size, 1, 1), _BLOCK,
            bits, product.lanes, product.semiring, rows, starts, product.work.before,
            *product.operands, keys, numbers, values,
        )  # fmt: skip
        return sorted_runs(device, keys, numbers, values, bits, rows, starts)


def lanes_of(b: Csr[DeviceArray]) -> int:
    """Return how many threads go through a row of a second factor together."""
    mean = b.nnz / max(b.shape[0], 1)
    return next((n for n in (4, 8, 16) if n >= mean), 32)


def batches_of(starts: HostArray) -> list[tuple[int, int]]:
    """Cut rows, with *starts* (count + 1,) of their products, into runs up to `BATCH`.

    A row of more is alone.
    """
    cuts, start, count = [], 0, starts.size - 1
    while start < count:
        most = int(np.searchsorted(starts, starts[start] + BATCH, side="right")) - 1
        stop = max(start + 1, most)
        cuts.append((start, stop))
        start = stop
    return cuts


def converted(
    device: Device, pointers: DeviceArray, dtype: np.dtype[np.generic]
) -> DeviceArray:
    """Return integers as another type; as they are if they are of it."""
    if pointers.dtype == dtype:
        return pointers
    out = device.empty(pointers.shape, dtype)
    kernel = registry.find("convert", INDICES[pointers.dtype], INDICES[out.dtype])
    launch_flat(device, kernel, out.size, out.size, pointers, out)
    return out


def widened(device: Device, a: Csr[DeviceArray]) -> Csr[DeviceArray]:
    """Return a matrix with indices of 64 bits."""
    wide = np.dtype(np.int64)
    indptr, indices = (converted(device, x, wide) for x in (a.indptr, a.indices))
    return Csr(indptr, indices, a.data, a.shape)
