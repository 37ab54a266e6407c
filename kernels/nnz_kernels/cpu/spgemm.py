"""Kernels of sparse products; `sparse_product.py` says which way a row goes."""

from __future__ import annotations

import numba
import numpy as np

from nnz_kernels.cpu._bits import (
    KEYS,
    NO_KEY,
    count_bits,
    count_less,
    lowest_bit,
)
from nnz_kernels.cpu._runtime import PARALLEL, SERIAL
from nnz_kernels.cpu._sparse_types import entry

#: Columns that are ranked, and columns that lie near each other: the bits of a word.
FEW = 64

#: Columns of a result up to which each thread may have a dense row.
DENSE = 1 << 24

#: Products that one row costs besides its own.
ROW = 4


@numba.njit(**PARALLEL)
def count_products(aptr, aidx, bptr, out, chunks):  # type: ignore[no-untyped-def]
    rows = aptr.size - 1
    for c in numba.prange(chunks):
        for i in range(rows * c // chunks, rows * (c + 1) // chunks):
            total = np.int64(0)
            for p in range(aptr[i], aptr[i + 1]):
                j = np.uint64(aidx[p])
                total += np.int64(bptr[j + np.uint64(1)]) - np.int64(bptr[j])
            out[i + 1] = total


@numba.njit(**SERIAL)
def _boundary(work, chunk, chunks):  # type: ignore[no-untyped-def]
    """Return the first row of a chunk; a row costs `ROW` besides its products."""
    rows = work.size - 1
    target = (work[rows] + ROW * rows) * chunk // chunks
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        if work[middle] + ROW * middle < target:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(**SERIAL)
def _span(aptr, aidx, bptr, bidx, i):  # type: ignore[no-untyped-def]
    """Return the lowest and the highest column of the products of a row."""
    low, high = np.int64(1) << 60, np.int64(-1)
    for p in range(aptr[i], aptr[i + 1]):
        j = np.uint64(aidx[p])
        first, last = np.uint64(bptr[j]), np.uint64(bptr[j + np.uint64(1)])
        if first < last:
            low = min(low, np.int64(bidx[first]))
            high = max(high, np.int64(bidx[last - np.uint64(1)]))
    return low, high


@numba.njit(**SERIAL)
def _count_near(aptr, aidx, bptr, bidx, i, low):  # type: ignore[no-untyped-def]
    """Count columns that lie within a word of *low*."""
    mask = np.uint64(FEW - 1)  # of no effect on rows that are sorted
    found = np.uint64(0)
    for p in range(aptr[i], aptr[i + 1]):
        j = np.uint64(aidx[p])
        for q in range(bptr[j], bptr[j + np.uint64(1)]):
            place = np.uint64(np.int64(bidx[np.uint64(q)]) - low) & mask
            found |= np.uint64(1) << place
    return count_bits(found)


@numba.njit(**SERIAL)
def _count_stamped(aptr, aidx, bptr, bidx, i, stamps):  # type: ignore[no-untyped-def]
    """Count columns; the stamp of one that was met is the number of the row."""
    count = 0
    row = np.int32(i)
    for p in range(aptr[i], aptr[i + 1]):
        j = np.uint64(aidx[p])
        for q in range(bptr[j], bptr[j + np.uint64(1)]):
            column = np.uint64(bidx[np.uint64(q)])
            count += stamps[column] != row
            stamps[column] = row
    return count


@numba.njit(**SERIAL)
def _cells(products, most):  # type: ignore[no-untyped-def]
    """Return the cells of a hash table for a row: twice its products, if there are."""
    cells = 16
    while cells < 2 * products and cells < most:
        cells *= 2
    return cells


@numba.njit(**SERIAL)
def _slot(table, factor, column):  # type: ignore[no-untyped-def]
    """Return the cell of a column in a hash table, or the free one for it."""
    mask = np.uint64(table.size - 1)
    at = ((np.uint64(column) * factor) >> np.uint64(32)) & mask
    while table[at] != -1 and table[at] != column:
        at = (at + np.uint64(1)) & mask
    return at


@numba.njit(**SERIAL)
def _count_hashed(aptr, aidx, bptr, bidx, i, table, factor):  # type: ignore[no-untyped-def]
    """Count the columns of a row in a hash table, and clear it."""
    count = 0
    for p in range(aptr[i], aptr[i + 1]):
        j = np.uint64(aidx[p])
        for q in range(bptr[j], bptr[j + np.uint64(1)]):
            column = np.int64(bidx[np.uint64(q)])
            at = _slot(table, factor, column)
            count += table[at] == -1
            table[at] = column
    table[:] = -1
    return count


@numba.njit(**PARALLEL)
def count_columns(  # type: ignore[no-untyped-def]
    aptr, aidx, bptr, bidx, work, stamps, tables, factor, out
):
    """Count the columns of each row; *stamps* hold no number of a row at first."""
    chunks, dense = stamps.shape[0], stamps.shape[1] > 0
    for c in numba.prange(chunks):
        start, stop = _boundary(work, c, chunks), _boundary(work, c + 1, chunks)
        for i in range(start, stop):
            low, high = _span(aptr, aidx, bptr, bidx, i)
            if high - low < FEW:
                out[i + 1] = _count_near(aptr, aidx, bptr, bidx, i, low)
            elif dense:
                out[i + 1] = _count_stamped(aptr, aidx, bptr, bidx, i, stamps[c])
            else:
                cells = _cells(work[i + 1] - work[i], tables.shape[1])
                table = tables[c, :cells]
                out[i + 1] = _count_hashed(aptr, aidx, bptr, bidx, i, table, factor)


@numba.njit(**SERIAL)
def _fill_near(  # type: ignore[no-untyped-def]
    aptr, aidx, adata, bptr, bidx, bdata, i, low, sums, indices, data, at
):
    """Fill in a row whose columns lie within a word of *low*."""
    found, mask, nothing = np.uint64(0), np.uint64(FEW - 1), -sums.dtype.type(0)
    for p in range(aptr[i], aptr[i + 1]):
        j, factor = np.uint64(aidx[p]), adata[np.uint64(p)]
        for q in range(bptr[j], bptr[j + np.uint64(1)]):
            place = np.uint64(np.int64(bidx[np.uint64(q)]) - low) & mask
            found |= np.uint64(1) << place
            sums[place] += factor * bdata[np.uint64(q)]
    while found:
        place = np.uint64(lowest_bit(found))
        indices[at] = low + np.int64(place)
        if data.size:
            data[at] = sums[place]
        sums[place] = nothing
        at += 1
        found &= found - np.uint64(1)


@numba.njit(**SERIAL)
def _padded(keys, count):  # type: ignore[no-untyped-def]
    """Pad keys, and return how many steps they take to be compared."""
    steps = (count + KEYS - 1) // KEYS
    for k in range(count, steps * KEYS):
        keys[np.uint64(k)] = np.int32(NO_KEY)
    return steps


@numba.njit(**SERIAL)
def _fill_distinct(  # type: ignore[no-untyped-def]
    aptr, aidx, adata, bptr, bidx, bdata, i, keys, values, indices, data, at
):
    """Fill in a row of few products, each of another column."""
    m = np.uint64(0)
    for p in range(aptr[i], aptr[i + 1]):
        j, factor = np.uint64(aidx[p]), adata[np.uint64(p)]
        for q in range(bptr[j], bptr[j + np.uint64(1)]):
            keys[m] = np.int32(bidx[np.uint64(q)])
            values[m] = factor * bdata[np.uint64(q)]
            m += np.uint64(1)
    steps = _padded(keys, np.int64(m))
    for k in range(m):
        place = np.uint64(at + count_less(keys, steps, keys[k]))
        indices[place] = keys[k]
        if data.size:
            data[place] = values[k]


@numba.njit(**SERIAL)
def _fill_stamped(  # type: ignore[no-untyped-def]
    aptr, aidx, adata, bptr, bidx, bdata, i, keys, stamps, sums, indices, data, at
):
    """Fill in a row of few columns, adding up in a dense row."""
    m, row, nothing = np.uint64(0), np.int32(i), -sums.dtype.type(0)
    for p in range(aptr[i], aptr[i + 1]):
        j, factor = np.uint64(aidx[p]), adata[np.uint64(p)]
        for q in range(bptr[j], bptr[j + np.uint64(1)]):
            column = np.uint64(bidx[np.uint64(q)])
            keys[m] = np.int32(column)
            m += np.uint64(stamps[column] != row)
            stamps[column] = row
            sums[column] += factor * bdata[np.uint64(q)]
    steps = _padded(keys, np.int64(m))
    for k in range(m):
        place = np.uint64(at + count_less(keys, steps, keys[k]))
        indices[place] = keys[k]
        if data.size:
            data[place] = sums[np.uint64(keys[k])]
        sums[np.uint64(keys[k])] = nothing


@numba.njit(**SERIAL)
def _fill_dense(  # type: ignore[no-untyped-def]
    aptr, aidx, adata, bptr, bidx, bdata, i, low, high, bits, sums, columns, indices,
    data, at,
):  # fmt: skip
    """Fill a row in from dense sums and their bitmap, which are cleared on the way.

    Whether a column is new cannot be foretold, so nothing branches on it.
    """
    above, one, six = np.uint64((columns + 63) // 64), np.uint64(1), np.uint64(6)
    mask, nothing = np.uint64(63), -sums.dtype.type(0)
    for p in range(aptr[i], aptr[i + 1]):
        j, factor = np.uint64(aidx[p]), adata[np.uint64(p)]
        for q in range(bptr[j], bptr[j + np.uint64(1)]):
            column = np.uint64(bidx[np.uint64(q)])
            word = column >> six
            bits[word] |= one << (column & mask)
            bits[above + (word >> six)] |= one << (word & mask)
            sums[column] += factor * bdata[np.uint64(q)]
    for top in range(low >> 12, (high >> 12) + 1):
        words = bits[above + np.uint64(top)]
        bits[above + np.uint64(top)] = 0
        while words:
            word = np.uint64(64 * top + lowest_bit(words))
            words &= words - one
            found = bits[word]
            bits[word] = 0
            while found:
                column = (word << six) + np.uint64(lowest_bit(found))
                found &= found - one
                indices[at] = column
                if data.size:
                    data[at] = sums[column]
                sums[column] = nothing
                at += 1


@numba.njit(**SERIAL)
def _fill_hashed(  # type: ignore[no-untyped-def]
    aptr, aidx, adata, bptr, bidx, bdata, i, table, factor, sums, order, indices, data,
    at,
):  # fmt: skip
    """Fill a row in from a hash table, which is cleared in the end."""
    count = 0
    for p in range(aptr[i], aptr[i + 1]):
        j, left = np.uint64(aidx[p]), adata[np.uint64(p)]
        for q in range(bptr[j], bptr[j + np.uint64(1)]):
            column = np.int64(bidx[np.uint64(q)])
            cell = _slot(table, factor, column)
            order[count] = column
            count += table[cell] == -1
            table[cell] = column
            sums[cell] += left * bdata[np.uint64(q)]
    order[:count].sort()
    for k in range(count):
        cell = _slot(table, factor, order[k])
        indices[at + k] = order[k]
        if data.size:
            data[at + k] = sums[cell]
        sums[cell] = -sums.dtype.type(0)
    table[:] = -1


@numba.njit(**PARALLEL)
def fill_in(  # type: ignore[no-untyped-def]
    aptr, aidx, adata, bptr, bidx, bdata, work, columns, stamps, bits, tables, factor,
    sums, orders, indptr, indices, data,
):  # fmt: skip
    """Write columns and values of each row, of which *indptr* tells the number.

    Between two rows all sums are minus zero, which any number added to gives that
    number, a zero of either sign included.
    """
    chunks, dense = stamps.shape[0], stamps.shape[1] > 0
    for c in numba.prange(chunks):
        keys, values = np.empty(FEW + KEYS, np.int32), np.empty(FEW, adata.dtype)
        start, stop = _boundary(work, c, chunks), _boundary(work, c + 1, chunks)
        for i in range(start, stop):
            products, at = work[i + 1] - work[i], indptr[i]
            low, high = _span(aptr, aidx, bptr, bidx, i)
            if high - low < FEW:
                _fill_near(
                    aptr, aidx, adata, bptr, bidx, bdata, i, low, sums[c], indices,
                    data, at,
                )  # fmt: skip
            elif dense and products <= FEW and products == indptr[i + 1] - at:
                _fill_distinct(
                    aptr, aidx, adata, bptr, bidx, bdata, i, keys, values, indices,
                    data, at,
                )  # fmt: skip
            elif dense and indptr[i + 1] - at <= FEW:
                _fill_stamped(
                    aptr, aidx, adata, bptr, bidx, bdata, i, keys, stamps[c], sums[c],
                    indices, data, at,
                )  # fmt: skip
            elif dense:
                _fill_dense(
                    aptr, aidx, adata, bptr, bidx, bdata, i, low, high, bits[c],
                    sums[c], columns, indices, data, at,
                )  # fmt: skip
            else:
                cells = _cells(products, tables.shape[1])
                _fill_hashed(
                    aptr, aidx, adata, bptr, bidx, bdata, i, tables[c, :cells],
                    factor, sums[c], orders[c], indices, data, at,
                )  # fmt: skip


@numba.njit(**SERIAL)
def _found(indices, start, stop, column):  # type: ignore[no-untyped-def]
    """Return where in a sorted row a column is."""
    while start < stop:
        middle = (start + stop) // 2
        if indices[middle] < column:
            start = middle + 1
        else:
            stop = middle
    return start


@numba.njit(**PARALLEL)
def fill_values(  # type: ignore[no-untyped-def]
    aptr, aidx, adata, bptr, bidx, bdata, work, places, indptr, indices, data
):
    nothing = -data.dtype.type(0)  # as in `fill_in`
    chunks = places.shape[0]
    for c in numba.prange(chunks):
        place = places[c]
        start, stop = _boundary(work, c, chunks), _boundary(work, c + 1, chunks)
        for i in range(start, stop):
            first, last = indptr[i], indptr[i + 1]
            if place.size:
                for at in range(first, last):
                    place[np.uint64(indices[at])] = at
            data[first:last] = nothing
            for p in range(aptr[i], aptr[i + 1]):
                j, factor = np.uint64(aidx[p]), adata[np.uint64(p)]
                for q in range(bptr[j], bptr[j + np.uint64(1)]):
                    column = bidx[np.uint64(q)]
                    if place.size:
                        at = place[np.uint64(column)]
                    else:
                        at = _found(indices, first, last, column)
                    data[np.uint64(at)] += factor * bdata[np.uint64(q)]


ENTRIES = (
    entry(count_products, "iiiLN"),
    entry(count_columns, "iiiiLSMUL"),
    entry(fill_in, "iifiifLNSWMUFMLif"),
    entry(fill_values, "iifiifLMLif"),
)
