"""Ops between sparse matrices on the host.

What reads every entry once and computes little is NumPy; the rest has kernels, in
`spgemm.py` and `merge.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnz_kernels.api.semirings import check_masked
from nnz_kernels.api.sparse import (
    Norm,
    ProductPlan,
    ProductSize,
    Selection,
    Semiring,
    check_factors,
    check_matrix,
    check_plan,
    check_sampled,
    check_scales,
    check_sum,
    check_triangle,
    chosen,
)
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._runtime import readable, thread_count
from nnz_kernels.cpu.merge import (
    count_union,
    dots_on_pattern,
    fill_union,
    solve_triangle,
    transpose_rows,
)
from nnz_kernels.cpu.recycled import RECYCLER
from nnz_kernels.cpu.semirings import masked
from nnz_kernels.cpu.semirings import semiring_spmv as semiring_spmv
from nnz_kernels.cpu.sparse_product import counts_of, fill, refill, work_of
from nnz_kernels.errors import StructureError
from nnz_kernels.formats import Csr

Matrix = Csr[HostArray]

#: Entries that an index of 32 bits counts.
_MOST_32 = 2**31 - 1


def canonical(a: Matrix, /) -> Matrix:
    check_matrix(a)
    if a.is_sorted and not a.has_duplicates:
        return a
    ordered = transpose(transpose(a))
    rows, columns = _rows_of(ordered), ordered.indices
    first = np.ones(ordered.nnz, np.bool_)
    first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    place = np.cumsum(first) - 1
    data = np.zeros(int(first.sum()), a.data.dtype)
    with np.errstate(all="ignore"):
        data[place[first]] = ordered.data[first]
        np.add.at(data, place[~first], ordered.data[~first])
    indptr = np.searchsorted(rows[first], np.arange(a.shape[0] + 1))
    kind = a.indices.dtype
    return Csr(indptr.astype(kind), columns[first].astype(kind), data, a.shape)


def product_size(a: Matrix, b: Matrix, /) -> ProductSize:
    check_factors(a, b)
    work = work_of(a, b, None)
    bound = np.minimum(np.diff(work), b.shape[1]).sum()
    return ProductSize(int(work[-1]), int(bound))


def product_counts(a: Matrix, b: Matrix, /, *, threads: int | None = None) -> HostArray:
    check_factors(a, b)
    return counts_of(a, b, work_of(a, b, threads), threads)


def plan_product(
    a: Matrix, b: Matrix, /, *, threads: int | None = None
) -> ProductPlan[HostArray]:
    check_factors(a, b)
    c = _multiplied(a, b, threads, values=False)
    return ProductPlan(c.indptr, c.indices, c.shape, (a.nnz, b.nnz))


def planned_product(
    plan: ProductPlan[HostArray],
    a: Matrix,
    b: Matrix,
    /,
    *,
    threads: int | None = None,
) -> Matrix:
    check_plan(plan, a, b)
    wide = plan.indptr.astype(np.int64)
    left, right = _widened(plan.indices.dtype, a, b)
    work = work_of(left, right, threads)
    data = refill(left, right, work, wide, plan.indices, threads)
    return Csr(plan.indptr, plan.indices, data, plan.shape)


def spgemm(a: Matrix, b: Matrix, /, *, threads: int | None = None) -> Matrix:
    check_factors(a, b)
    return _multiplied(a, b, threads, values=True)


def semiring_product(
    a: Matrix,
    b: Matrix,
    semiring: Semiring,
    mask: Matrix | None = None,
    /,
    *,
    threads: int | None = None,
) -> Matrix:
    check_masked(a, b, semiring, mask)
    if mask is None and semiring == "plus_times":
        return spgemm(a, b, threads=threads)
    wanted = mask or _multiplied(a, b, threads, values=False)
    return masked(a, b, semiring, wanted, transpose, threads)


def add(
    alpha: complex,
    a: Matrix,
    beta: complex,
    b: Matrix,
    /,
    *,
    threads: int | None = None,
) -> Matrix:
    check_sum(a, b, (alpha, beta))
    chunks = thread_count(threads, a.nnz + b.nnz)
    counts = np.zeros(a.shape[0] + 1, np.int64)
    pairs = [readable(x) for x in (a.indptr, a.indices, b.indptr, b.indices)]
    count_union(*pairs, counts, chunks)
    indptr = np.cumsum(counts, out=counts)
    indices, data = _room(int(indptr[-1]), a)
    dtype = a.data.dtype
    one, two = (
        (readable(x.indptr), readable(x.indices), readable(x.data))
        for x in _widened(indices.dtype, a, b)
    )
    left, right = np.array([alpha], dtype), np.array([beta], dtype)
    fill_union(left, *one, right, *two, indptr, indices, data, chunks)
    return Csr(indptr.astype(indices.dtype), indices, data, a.shape)


def scale(a: Matrix, rows: HostArray | None, columns: HostArray | None, /) -> Matrix:
    check_scales(a, rows, columns)
    data = a.data.copy()
    with np.errstate(all="ignore"):
        if rows is not None:
            data *= np.repeat(rows, np.diff(a.indptr))
        if columns is not None:
            data *= columns[a.indices]
    return replace(a, data=data)


def submatrix(
    a: Matrix, rows: Selection | None, columns: Selection | None, /
) -> Matrix:
    check_matrix(a)
    if rows is not None:
        a = _taken(a, chosen(rows, a.shape[0], "row"))
    if columns is not None:
        numbers = chosen(columns, a.shape[1], "column")
        a = transpose(_taken(transpose(a), numbers))
    return a


def transpose(
    a: Matrix, /, *, conjugate: bool = False, threads: int | None = None
) -> Matrix:
    check_matrix(a)
    m, n = a.shape
    # Each thread has a counter for every column, which entries have to pay for.
    chunks = min(thread_count(threads, a.nnz), max(1, a.nnz // max(1, n)))
    places = np.zeros((chunks, n), np.int64)
    indptr = np.empty(n + 1, a.indptr.dtype)
    indices = RECYCLER.empty(a.nnz, a.indices.dtype)
    data = RECYCLER.empty(a.nnz, a.data.dtype)
    arrays = (readable(x) for x in (a.indptr, a.indices, a.data))
    transpose_rows(*arrays, places, indptr, indices, data)
    return Csr(indptr, indices, data.conj() if conjugate else data, (n, m))


def triangular_solve(
    a: Matrix,
    b: HostArray,
    /,
    *,
    lower: bool = True,
    unit_diagonal: bool = False,
    threads: int | None = None,
) -> HostArray:
    check_triangle(a, b)
    x = np.array(b, order="C")
    block = x.reshape(x.shape[0], -1) if x.size else x.reshape(x.shape[0], 0)
    chunks = max(1, min(thread_count(threads, a.nnz * block.shape[1]), block.shape[1]))
    bad = np.empty(chunks, np.int64)
    arrays = (readable(v) for v in (a.indptr, a.indices, a.data))
    solve_triangle(*arrays, block, lower, unit_diagonal, bad)
    if (row := int(bad.max())) >= 0:
        raise StructureError(f"the diagonal entry of row {row} is zero or missing")
    return x


def sddmm(
    pattern: Matrix, x: HostArray, y: HostArray, /, *, threads: int | None = None
) -> Matrix:
    check_sampled(pattern, x, y)
    data = RECYCLER.empty(pattern.nnz, x.dtype)
    arrays = (readable(v) for v in (pattern.indptr, pattern.indices, x, y))
    chunks = thread_count(threads, pattern.nnz * x.shape[1])
    dots_on_pattern(*arrays, data, chunks)
    return replace(pattern, data=data)


def norm(a: Matrix, kind: Norm, /) -> float:
    check_matrix(a)
    magnitudes = np.abs(a.data).astype(np.float64)
    largest = float(magnitudes.max(initial=0.0))
    if kind == "max" or not 0.0 < largest < np.inf:
        return largest
    if kind == "fro":  # squares of numbers up to one do not overflow
        magnitudes /= largest
        return largest * float(np.sqrt(np.einsum("i,i->", magnitudes, magnitudes)))
    positive = Csr(a.indptr, a.indices, magnitudes, a.shape)
    return float(sums(positive, 0 if kind == "1" else 1).max(initial=0.0))


def sums(a: Matrix, axis: int, /) -> HostArray:
    check_matrix(a)
    where, size = (a.indices, a.shape[1]) if axis == 0 else (_rows_of(a), a.shape[0])
    real = np.bincount(where, a.data.real, size)
    with np.errstate(all="ignore"):
        if a.data.dtype.kind != "c":
            return real.astype(a.data.dtype)
        out = np.empty(size, a.data.dtype)
        out.real, out.imag = real, np.bincount(where, a.data.imag, size)
    return out


def diagonal(a: Matrix, /) -> HostArray:
    check_matrix(a)
    out = np.zeros(min(a.shape), a.data.dtype)
    on = _rows_of(a) == a.indices
    out[a.indices[on]] = a.data[on]
    return out


def _multiplied(a: Matrix, b: Matrix, threads: int | None, *, values: bool) -> Matrix:
    work = work_of(a, b, threads)
    indptr = counts_of(a, b, work, threads)
    left, right = _widened(_counting(int(indptr[-1]), a), a, b)
    indices, data = fill(left, right, work, indptr, threads, values=values)
    return Csr(indptr.astype(indices.dtype), indices, data, (a.shape[0], b.shape[1]))


def _room(entries: int, like: Matrix) -> tuple[HostArray, HostArray]:
    """Return memory for a result, with indices that count its entries."""
    kind = _counting(entries, like)
    return RECYCLER.empty(entries, kind), RECYCLER.empty(entries, like.data.dtype)


def _counting(entries: int, like: Matrix) -> np.dtype[Any]:
    """Return the type of indices that count so many entries."""
    return np.dtype(np.int64) if entries > _MOST_32 else like.indices.dtype


def _widened(kind: np.dtype[Any], *given: Matrix) -> tuple[Matrix, ...]:
    """Return matrices with the indices of a result."""
    return tuple(
        Csr(a.indptr.astype(kind, copy=False), a.indices.astype(kind, copy=False),
            a.data, a.shape)
        for a in given
    )  # fmt: skip


def _rows_of(a: Matrix) -> HostArray:
    """Return the row of each entry."""
    rows: HostArray = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    return rows


def _taken(a: Matrix, rows: Sequence[int]) -> Matrix:
    """Return the named rows of a matrix, one below the other."""
    numbers = np.asarray(rows, np.int64)
    starts = a.indptr[:-1].astype(np.int64)[numbers]
    lengths = np.diff(a.indptr).astype(np.int64)[numbers]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    places = np.repeat(starts - ends[:-1], lengths) + np.arange(ends[-1])
    kind = a.indices.dtype if ends[-1] <= _MOST_32 else np.dtype(np.int64)
    return Csr(
        ends.astype(kind), a.indices[places].astype(kind, copy=False), a.data[places],
        (numbers.size, a.shape[1]),
    )  # fmt: skip
