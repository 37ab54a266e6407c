"""Products of two sparse matrices on the host.

Gustavson 1978: each row of the result from rows of the second factor, in two passes.
The first counts the columns of each row, the second fills them in. A row is done in
one of four ways:

* columns within 64 of each other, as in a band: sums lie side by side, and the bits of
  a word say which there are;
* few columns: sums lie in a dense row, where a stamp says whether one was met in this
  row; their order comes from comparing each column with all, a register at a time,
  which no sort comes near. Where each product has a column of its own, sums are not
  needed;
* more columns: a bitmap of two levels, read from the top, gives them in order;
* a result too wide for dense rows: a hash table, whose columns are sorted in the end.

All add the products of an entry in stored order, so the ways have the same bits.
Threads own runs of rows with equal numbers of products. `spgemm.py` has the kernels.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._runtime import readable, thread_count
from nnz_kernels.cpu.recycled import RECYCLER
from nnz_kernels.cpu.spgemm import (
    DENSE,
    FEW,
    ROW,
    count_columns,
    count_products,
    fill_in,
    fill_values,
)
from nnz_kernels.formats import Csr

#: Cells of dense rows, of all threads together, for a product; and those that are free.
CELLS, SMALL = 4, 1 << 17


def work_of(a: Csr[HostArray], b: Csr[HostArray], threads: int | None) -> HostArray:
    """Return running sums, int64 (m + 1,), of the products of the rows."""
    out = np.zeros(a.shape[0] + 1, np.int64)
    chunks = thread_count(threads, a.nnz)
    count_products(
        readable(a.indptr), readable(a.indices), readable(b.indptr), out, chunks
    )
    total: HostArray = np.cumsum(out, out=out)
    return total


def counts_of(
    a: Csr[HostArray], b: Csr[HostArray], work: HostArray, threads: int | None
) -> HostArray:
    """Return the row pointers of the product, int64."""
    out = np.zeros(a.shape[0] + 1, np.int64)
    space = Scratch(a.shape[0], work, b.shape[1], threads)
    count_columns(
        *(readable(x) for x in (a.indptr, a.indices, b.indptr, b.indices)),
        work, space.stamps(), *space.tables(), out,
    )  # fmt: skip
    total: HostArray = np.cumsum(out, out=out)
    return total


def fill(
    a: Csr[HostArray],
    b: Csr[HostArray],
    work: HostArray,
    indptr: HostArray,
    threads: int | None,
    *,
    values: bool,
) -> tuple[HostArray, HostArray]:
    """Return columns and values of the product; no values unless they are wanted."""
    space = Scratch(a.shape[0], work, b.shape[1], threads)
    indices = RECYCLER.empty(int(indptr[-1]), a.indices.dtype)
    data = RECYCLER.empty(indices.size if values else 0, a.data.dtype)
    fill_in(
        *(readable(x) for x in (a.indptr, a.indices, a.data)),
        *(readable(x) for x in (b.indptr, b.indices, b.data)),
        work, b.shape[1], space.stamps(), space.bits(), *space.tables(),
        *space.sums(a.data.dtype),
        indptr, indices, data,
    )  # fmt: skip
    return indices, data


def refill(
    a: Csr[HostArray],
    b: Csr[HostArray],
    work: HostArray,
    indptr: HostArray,
    indices: HostArray,
    threads: int | None,
) -> HostArray:
    """Return the values of a product whose columns are known."""
    space = Scratch(a.shape[0], work, b.shape[1], threads)
    data = RECYCLER.empty(indices.size, a.data.dtype)
    fill_values(
        *(readable(x) for x in (a.indptr, a.indices, a.data)),
        *(readable(x) for x in (b.indptr, b.indices, b.data)),
        work, space.places(), indptr, readable(indices), data,
    )  # fmt: skip
    return data


class Scratch:
    """Scratch of each thread.

    Args:
        rows: Of the result.
        work: Running sums of the products of rows.
        columns: Of the result.
        threads: At most.
    """

    def __init__(
        self, rows: int, work: HostArray, columns: int, threads: int | None
    ) -> None:
        self._columns = columns
        self._threads = thread_count(threads, int(work[-1]) + ROW * (work.size - 1))
        # Dense rows are written once before the first product, of which there must be
        # enough; stamps are numbers of rows, of 32 bits.
        paid = self._threads * columns <= max(SMALL, CELLS * int(work[-1]))
        self._dense = columns <= DENSE and rows < 2**31 and paid
        self._longest = int(np.diff(work).max(initial=0))
        longest = min(self._longest, columns)
        # Never more than half full, so that a free cell is near.
        cells = max(16, 1 << (2 * longest).bit_length())
        self._cells = 0 if self._dense else cells

    def stamps(self) -> HostArray:
        """Return stamps of no row, one for each column that a dense row may have."""
        cells = self._columns if self._dense else 0
        return np.full((self._threads, cells), -1, np.int32)

    def bits(self) -> HostArray:
        """Return a bitmap for rows of many columns, and one of its words; empty."""
        needed = self._dense and self._longest > FEW
        low = -(-self._columns // 64)
        words = low + -(-low // 64) if needed else 0
        return np.zeros((self._threads, words), np.uint64)

    def tables(self) -> tuple[HostArray, np.uint64]:
        """Return hash tables, and their factor.

        It is random, so that nobody can choose columns that collide; no answer depends
        on it.
        """
        table = np.full((self._threads, self._cells), -1, np.int64)
        return table, np.uint64(2 * secrets.randbelow(1 << 63) + 1)

    def sums(self, dtype: np.dtype[Any]) -> tuple[HostArray, HostArray]:
        """Return a dense row, or the values of a hash table, and columns to sort.

        Each is minus zero, as `fill_in` wants it.
        """
        cells = self._columns if self._dense else self._cells
        shape = (self._threads, max(cells, FEW))
        zeros = np.negative(np.zeros(shape, dtype))
        return zeros, np.empty((self._threads, self._cells), np.int64)

    def places(self) -> HostArray:
        """Return where in the result the columns of a row are; none for wide ones."""
        cells = self._columns if self._dense else 0
        return np.empty((self._threads, cells), np.int64)
