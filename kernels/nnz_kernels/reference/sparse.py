"""Ops between sparse matrices, the slow and obvious way: a dictionary a row."""

from __future__ import annotations

import numpy as np

from nnz_kernels.api.sparse import (
    Norm,
    ProductPlan,
    ProductSize,
    Selection,
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
from nnz_kernels.errors import StructureError
from nnz_kernels.formats import Csr
from nnz_kernels.reference.semirings import semiring_product as semiring_product
from nnz_kernels.reference.semirings import semiring_spmv as semiring_spmv

Matrix = Csr[HostArray]
#: Values by column, in the order in which they came.
Row = dict[int, complex]


def canonical(a: Matrix, /) -> Matrix:
    check_matrix(a)
    return _matrix([_collected(row) for row in _entries(a)], a.shape, a)


def product_size(a: Matrix, b: Matrix, /) -> ProductSize:
    check_factors(a, b)
    lengths = np.diff(b.indptr)
    rows = [sum(int(lengths[j]) for j, _ in row) for row in _entries(a)]
    return ProductSize(sum(rows), sum(min(row, b.shape[1]) for row in rows))


def product_counts(a: Matrix, b: Matrix, /, *, threads: int | None = None) -> HostArray:
    return spgemm(a, b).indptr.astype(np.int64)


def plan_product(
    a: Matrix, b: Matrix, /, *, threads: int | None = None
) -> ProductPlan[HostArray]:
    c = spgemm(a, b)
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
    return spgemm(a, b)


def spgemm(a: Matrix, b: Matrix, /, *, threads: int | None = None) -> Matrix:
    check_factors(a, b)
    others = _entries(b)
    rows: list[Row] = []
    with np.errstate(all="ignore"):
        for row in _entries(a):
            products = [(k, x * y) for j, x in row for k, y in others[j]]
            rows.append(_collected(products))
    return _matrix(rows, (a.shape[0], b.shape[1]), a)


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
    left, right = a.data.dtype.type(alpha), a.data.dtype.type(beta)
    with np.errstate(all="ignore"):
        rows = [
            _collected(
                [(j, left * x) for j, x in one] + [(j, right * x) for j, x in two]
            )
            for one, two in zip(_entries(a), _entries(b), strict=True)
        ]
    return _matrix(rows, a.shape, a)


def scale(a: Matrix, rows: HostArray | None, columns: HostArray | None, /) -> Matrix:
    check_scales(a, rows, columns)
    data = a.data.copy()
    with np.errstate(all="ignore"):
        for i in range(a.shape[0]):
            for p in range(a.indptr[i], a.indptr[i + 1]):
                if rows is not None:
                    data[p] *= rows[i]
                if columns is not None:
                    data[p] *= columns[a.indices[p]]
    return Csr(a.indptr, a.indices, data, a.shape)


def submatrix(
    a: Matrix, rows: Selection | None, columns: Selection | None, /
) -> Matrix:
    check_matrix(a)
    entries = [dict(row) for row in _entries(a)]
    picked = [entries[i] for i in chosen(rows, a.shape[0], "row")]
    if columns is None:  # there may be any number of them
        return _matrix(picked, (len(picked), a.shape[1]), a)
    taken = chosen(columns, a.shape[1], "column")
    picked = [{k: row[j] for k, j in enumerate(taken) if j in row} for row in picked]
    return _matrix(picked, (len(picked), len(taken)), a)


def transpose(
    a: Matrix, /, *, conjugate: bool = False, threads: int | None = None
) -> Matrix:
    check_matrix(a)
    turned: list[list[tuple[int, complex]]] = [[] for _ in range(a.shape[1])]
    for i, row in enumerate(_entries(a)):
        for j, x in row:
            turned[j].append((i, np.conj(x) if conjugate else x))
    flat = [entry for row in turned for entry in row]
    ends = np.cumsum([0, *map(len, turned)])
    return Csr(
        ends.astype(a.indptr.dtype),
        np.array([i for i, _ in flat], a.indices.dtype),
        np.array([x for _, x in flat], a.data.dtype),
        (a.shape[1], a.shape[0]),
    )


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
    x, n = b.copy(), a.shape[0]
    with np.errstate(all="ignore"):
        for i in range(n) if lower else range(n - 1, -1, -1):
            pivot = a.data.dtype.type(1 if unit_diagonal else 0)
            for p in range(a.indptr[i], a.indptr[i + 1]):
                j = a.indices[p]
                if (j < i) if lower else (j > i):
                    x[i] -= a.data[p] * x[j]
                elif j == i and not unit_diagonal:
                    pivot = a.data[p]
            if pivot == 0:
                raise StructureError(
                    f"the diagonal entry of row {i} is zero or missing"
                )
            x[i] /= pivot
    return x


def sddmm(
    pattern: Matrix, x: HostArray, y: HostArray, /, *, threads: int | None = None
) -> Matrix:
    check_sampled(pattern, x, y)
    data = np.empty(pattern.nnz, x.dtype)
    with np.errstate(all="ignore"):
        for i in range(pattern.shape[0]):
            for p in range(pattern.indptr[i], pattern.indptr[i + 1]):
                data[p] = (x[i] * y[pattern.indices[p]]).sum()
    return Csr(pattern.indptr, pattern.indices, data, pattern.shape)


def norm(a: Matrix, kind: Norm, /) -> float:
    check_matrix(a)
    magnitudes = np.abs(a.data).astype(np.float64)
    if not magnitudes.size:
        return 0.0
    if kind == "max":
        return float(magnitudes.max())
    if kind == "fro":
        return float(np.hypot.reduce(magnitudes))
    positive = Csr(a.indptr, a.indices, magnitudes, a.shape)
    return float(sums(positive, 0 if kind == "1" else 1).max(initial=0.0))


def sums(a: Matrix, axis: int, /) -> HostArray:
    check_matrix(a)
    wide = np.result_type(a.data.dtype, np.float64)
    out = np.zeros(a.shape[1] if axis == 0 else a.shape[0], wide)
    with np.errstate(all="ignore"):
        for i, row in enumerate(_entries(a)):
            for j, x in row:
                out[j if axis == 0 else i] += x
        return out.astype(a.data.dtype)


def diagonal(a: Matrix, /) -> HostArray:
    check_matrix(a)
    out = np.zeros(min(a.shape), a.data.dtype)
    for i, row in enumerate(_entries(a)):
        for j, x in row:
            if i == j:
                out[i] = x
    return out


def _entries(a: Matrix) -> list[list[tuple[int, complex]]]:
    """Return the (column, value) pairs of each row; values are NumPy's scalars."""
    return [
        [(int(a.indices[p]), a.data[p]) for p in range(a.indptr[i], a.indptr[i + 1])]
        for i in range(a.shape[0])
    ]


def _collected(entries: list[tuple[int, complex]]) -> Row:
    """Add up what has one column, in order."""
    row: Row = {}
    for j, x in entries:
        row[j] = row[j] + x if j in row else x
    return row


def _matrix(rows: list[Row], shape: tuple[int, int], like: Matrix) -> Matrix:
    entries = [(j, row[j]) for row in rows for j in sorted(row)]
    return Csr(
        np.cumsum([0, *map(len, rows)]).astype(like.indptr.dtype),
        np.array([j for j, _ in entries], like.indices.dtype),
        np.array([x for _, x in entries], like.data.dtype),
        shape,
    )
