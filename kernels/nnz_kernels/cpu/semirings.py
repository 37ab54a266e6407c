"""Products over semirings on the host, and those of which a mask wants a part.

What a mask wants is computed in one of two ways, whichever touches less: by rows as
Gustavson does, where what is not wanted is passed over; or by dots of rows with rows of
the transposed second factor. Both add in the order of the columns of the first factor,
so they have the same bits. `semiring_rows.py` has the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nnz_kernels.api.semirings import (
    SEMIRINGS,
    ZEROS,
    check_applied,
)
from nnz_kernels.api.sparse import Semiring
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._runtime import readable, thread_count
from nnz_kernels.cpu.semiring_rows import masked_rows, semiring_rows
from nnz_kernels.cpu.spgemm import DENSE
from nnz_kernels.formats import Csr

Matrix = Csr[HostArray]

#: What an entry costs that is transposed, in products.
_TURN = 6


def masked(
    a: Matrix,
    b: Matrix,
    semiring: Semiring,
    mask: Matrix,
    turn: Callable[[Matrix], Matrix],
    threads: int | None,
) -> Matrix:
    """Return the entries of ``a @ b`` that a mask has, all operands canonical.

    Args:
        a: First factor.
        b: Second factor.
        semiring: That adds and multiplies.
        mask: Of the product's shape; its values are not read.
        turn: Transposes.
        threads: At most.
    """
    kind = np.result_type(a.indices, mask.indices)
    a, b, wanted = (_widened(one, kind) for one in (a, b, mask))
    data, found = _multiplied(a, *_narrowed(b, wanted), semiring, turn, threads)
    return _kept(wanted, data, found)


def _multiplied(
    a: Matrix,
    b: Matrix,
    mask: Matrix,
    semiring: Semiring,
    turn: Callable[[Matrix], Matrix],
    threads: int | None,
) -> tuple[HostArray, HostArray]:
    """Return a sum for each entry of the mask, and whether anything was added."""
    by_rows, by_dots = _work(a, np.diff(b.indptr)), _dots(a, b, mask)
    cost = int(by_dots[-1]) + _TURN * (b.nnz + sum(b.shape))
    turned = cost < int(by_rows[-1]) and b.shape[0] <= DENSE
    second, work = (turn(b), by_dots) if turned else (b, by_rows)
    # A row costs a little even where nothing is multiplied.
    work = work + np.asarray(mask.indptr, np.int64) + np.arange(work.size)
    chunks = thread_count(threads, int(work[-1]))
    width = b.shape[0] if turned else b.shape[1]
    data = np.empty(mask.nnz, a.data.dtype)
    found = np.zeros(mask.nnz, np.bool_)
    masked_rows(
        *(readable(x) for x in (a.indptr, a.indices, a.data)),
        *(readable(x) for x in (second.indptr, second.indices, second.data)),
        readable(mask.indptr), readable(mask.indices), work,
        SEMIRINGS.index(semiring), turned, np.full((chunks, width), -1, np.int64),
        data, found,
    )  # fmt: skip
    return data, found


def semiring_spmv(
    a: Matrix,
    x: HostArray,
    semiring: Semiring,
    /,
    *,
    threads: int | None = None,
) -> HostArray:
    check_applied(a, x, semiring)
    out = np.full(a.shape[0], ZEROS[semiring], a.data.dtype)
    arrays = (readable(v) for v in (a.indptr, a.indices, a.data, x))
    chunks = thread_count(threads, a.nnz)
    semiring_rows(*arrays, SEMIRINGS.index(semiring), out, chunks)
    return out


def _narrowed(b: Matrix, mask: Matrix) -> tuple[Matrix, Matrix]:
    """Renumber the columns where each thread's row of all would be too long.

    Only those stay that the mask has an entry in.
    """
    if b.shape[1] <= DENSE:
        return b, mask
    used = np.unique(mask.indices)
    kind = b.indices.dtype
    there = np.isin(b.indices, used)
    before = np.concatenate([[0], np.cumsum(there)])
    one, two = (
        replace(
            x,
            indptr=indptr.astype(kind),
            indices=np.searchsorted(used, indices).astype(kind),
            data=data,
            shape=(x.shape[0], used.size),
        )
        for x, indptr, indices, data in (
            (b, before[b.indptr], b.indices[there], b.data[there]),
            (mask, mask.indptr, mask.indices, mask.data),
        )
    )
    return one, two


def _work(a: Matrix, lengths: HostArray) -> HostArray:
    """Return running sums over rows, int64, of the lengths that their columns name."""
    done = np.concatenate([[0], np.cumsum(lengths[a.indices], dtype=np.int64)])
    return np.asarray(done[a.indptr])


def _dots(a: Matrix, b: Matrix, mask: Matrix) -> HostArray:
    """Return what dots take: the row of *a*, and each wanted column of *b*."""
    columns = np.bincount(b.indices, minlength=b.shape[1])
    return _work(mask, columns) + np.asarray(a.indptr, np.int64)


def _kept(mask: Matrix, data: HostArray, found: HostArray) -> Matrix:
    """Return the entries of a mask that were found."""
    if found.all():
        return Csr(mask.indptr, mask.indices, data, mask.shape)
    before = np.concatenate([[0], np.cumsum(found)])
    indptr = before[mask.indptr].astype(mask.indptr.dtype)
    return Csr(indptr, mask.indices[found], data[found], mask.shape)


def _widened(a: Matrix, kind: np.dtype[Any]) -> Matrix:
    return Csr(
        a.indptr.astype(kind, copy=False), a.indices.astype(kind, copy=False), a.data,
        a.shape,
    )  # fmt: skip
