"""Small problems that together launch every CUDA kernel of sparse algebra.

Each yields what was found beside what is right; compare `cuda_cases`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
from kernels.sparse_cases import dense, matrix, numbers

from nnz_kernels import reference as plain
from nnz_kernels.api.semirings import SEMIRINGS
from nnz_kernels.api.sparse import NORMS
from nnz_kernels.formats import Csr
from nnz_kernels.reference import factors as plain_factors
from nnz_kernels.reference import sparse as reference
from nnz_kernels.saddle import SaddleProblem, SaddleState

Answers = Iterator[tuple[Any, Any]]

TYPES = (np.float32, np.float64, np.complex128)
INDICES = (np.int32, np.int64)


def _parts(found: Csr[Any], right: Csr[Any]) -> Answers:
    for name in ("indptr", "indices", "data"):
        yield getattr(found, name), getattr(right, name)


def transposes(k: Any) -> Answers:
    for dtype, index in itertools.product(TYPES, INDICES):
        a = matrix((60, 41), dtype, index)
        for conjugate in (False, True):
            given = {"conjugate": conjugate}
            yield from _parts(k.transpose(a, **given), reference.transpose(a, **given))


def saddle(k: Any) -> Answers:
    """Rows that are staged together, and one that a whole block adds up."""
    rng = np.random.default_rng(9)
    lengths = [0, 700, 500, 1, 1500, *rng.integers(0, 9, 200).tolist()]
    for index in INDICES:
        a = uneven(lengths, 1600, np.float64, index)
        (rows, columns), at = a.shape, reference.transpose(a)
        lp = SaddleProblem(
            a, at, rng.standard_normal(columns), np.full(rows, -1.0),
            np.full(rows, np.inf), np.zeros(columns), np.full(columns, 0.5),
        )  # fmt: skip
        sizes = [columns, rows] * 2 + [columns, rows, columns, columns, rows, columns]
        start = SaddleState(*(rng.standard_normal(size) for size in sizes))
        states = [start.map(np.copy) for _ in range(2)]
        k.halpern_pdhg(lp, states[0], 0.01, 0.02, 3, 4)
        plain.halpern_pdhg(lp, states[1], 0.01, 0.02, 3, 4)
        for field in fields(start):
            yield tuple(getattr(one, field.name) for one in states)


def entries(k: Any) -> Answers:
    """Every op of an entry; rows longer than what a block stages."""
    for dtype, index in itertools.product(TYPES, INDICES):
        a = matrix((37, 53), dtype, index)
        b = uneven([0, 50, *([3] * 35)], 53, dtype, index)
        for kind in NORMS:
            yield k.norm(a, kind), reference.norm(a, kind)
        yield from _parts(k.add(2, a, -1, b), reference.add(2, a, -1, b))
        rows, columns = numbers((37,), dtype), numbers((53,), dtype)
        yield k.scale(a, rows, columns).data, reference.scale(a, rows, columns).data
        picked = [5, 5, -1, 0], slice(40, 2, -3)
        yield from _parts(k.submatrix(a, *picked), reference.submatrix(a, *picked))
        yield k.diagonal(a), reference.diagonal(a)
        for width in (3, 40):
            x, y = numbers((37, width), dtype), numbers((53, width), dtype)
            yield k.sddmm(a, x, y).data, reference.sddmm(a, x, y).data
        for axis in (0, 1):
            yield k.sums(b, axis), reference.sums(b, axis)
    long = uneven([7, 1300, 0, 1024, 2], 1400, np.float32, np.int32)
    yield k.sums(long, 1), reference.sums(long, 1)


def sorting(k: Any) -> Answers:
    """Unsorted rows that store columns again and again."""
    for dtype, index in itertools.product(TYPES, INDICES):
        a = matrix((40, 60), dtype, index, 0.5)
        columns = np.random.default_rng(2).integers(0, 60, a.nnz).astype(index)
        shuffled = replace(a, indices=columns)
        yield from _parts(k.canonical(shuffled), reference.canonical(shuffled))
        assert k.canonical(a).indices.tolist() == a.indices.tolist()


def products(k: Any) -> Answers:
    """Rows of each way: none, a small table, a large one, sorting."""
    for dtype, index in itertools.product(TYPES, INDICES):
        a = uneven([0, 1, 6, 20, 90, 3], 90, dtype, index)
        b = uneven([*([70] * 60), *([9] * 30)], 2900, dtype, index)
        ways = k.product_size(a, b)
        assert ways == reference.product_size(a, b)
        right = reference.spgemm(a, b)
        yield from _parts(k.spgemm(a, b), right)
        plan = k.plan_product(a, b)
        yield from _parts(k.planned_product(plan, a, b), right)
        yield k.product_counts(a, b), right.indptr.astype(np.int64)


def semirings(k: Any) -> Answers:
    """Every semiring, whole and masked in both ways; long rows of a vector product."""
    for dtype, index in itertools.product(TYPES, INDICES):
        a, b = (matrix(s, dtype, index, 0.6) for s in ((33, 12), (12, 30)))
        masks = [matrix((33, 30), np.float32, index, d, seed=7) for d in (0.02, 0.6)]
        long = uneven([7, 1300, 0, 2, *([3] * 130)], 1400, dtype, index)
        x = numbers((1400,), dtype)
        for semiring in SEMIRINGS:
            if dtype == np.complex128 and semiring in ("min_plus", "max_times"):
                continue
            for mask in (None, *masks):
                given = a, b, semiring, mask
                right = reference.semiring_product(*given)
                yield from _parts(k.semiring_product(*given), right)
            right = reference.semiring_spmv(long, x, semiring)
            yield k.semiring_spmv(long, x, semiring), right


def sorted_semirings(k: Any) -> Answers:
    """Rows of so many columns that products are sorted."""
    a = uneven([0, 1, 70], 90, np.float64, np.int32)
    b = uneven([*([70] * 60), *([9] * 30)], 2900, np.float64, np.int32)
    for semiring in SEMIRINGS:
        right = reference.semiring_product(a, b, semiring)
        yield from _parts(k.semiring_product(a, b, semiring), right)


def sums_of_many(k: Any) -> Answers:
    """More rows than one block sums."""
    a = matrix((1500, 4), np.float64, np.int32, 0.3)
    b = matrix((4, 30), np.float64, np.int32, 0.5)
    yield from _parts(k.spgemm(a, b), reference.spgemm(a, b))
    wide = replace(a, indptr=a.indptr.astype("i8"), indices=a.indices.astype("i8"))
    yield from _parts(
        k.submatrix(wide, slice(None, None, -1), None),
        reference.submatrix(wide, slice(None, None, -1), None),
    )


def triangles(k: Any) -> Answers:
    """Long chains of rows; rows that a thread has, and rows that a warp has."""
    for n, dtype, index in itertools.product((75, 61), TYPES, INDICES):
        a = _solid(n, dtype, index)
        for lower, unit in itertools.product((True, False), (True, False)):
            given = {"lower": lower, "unit_diagonal": unit}
            for shape in ((n,), (n, 5), (n, 37)):
                b = numbers(shape, dtype)
                right = reference.triangular_solve(a, b, **given)
                yield k.triangular_solve(a, b, **given), right
        # Numbers that are none, and the one that stands where no result is yet.
        strange = numbers((n, 3), dtype)
        bits = np.array([0x7FF8A5A5A5A5A5A5], np.uint64).view(np.float64)
        strange[n // 2] = [np.inf, np.nan, bits[0] if dtype != np.float32 else 1]
        found = k.triangular_solve(a, strange)
        yield found, reference.triangular_solve(a, strange)


def incomplete_factors(k: Any) -> Answers:
    """LU and Cholesky on the pattern, and triangles beside their diagonal."""
    for index in INDICES:
        a = _solid(75, np.float64, index)
        yield k.ilu0(a)[0], plain_factors.ilu0(a)[0]
        lower = reference.add(1, a, 1, reference.transpose(a))
        rows = np.repeat(np.arange(75), np.diff(lower.indptr))
        kept = lower.indices <= rows
        ends = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=75))])
        half = Csr(
            ends.astype(index), lower.indices[kept], lower.data[kept], lower.shape
        )
        yield k.ic0(half)[0], plain_factors.ic0(half)[0]
        b = numbers((75, 3), np.float64)
        strict = replace(half, data=0.1 * half.data)
        pivots = np.linspace(1, 2, 75)
        yield (
            k.solve_triangle(_strict(strict), pivots, b, upper=False),
            plain_factors.solve_triangle(_strict(strict), pivots, b, upper=False),
        )


def dense_vectors(k: Any) -> Answers:
    """Sums and products, in place too; inner products of one block and of many."""
    for n in (1, 700, 7001):
        x, y = numbers((n,), np.float64), numbers((n,), np.float64)[::-1].copy()
        for other in (y, None):
            out = x.copy()
            k.dense_axpby(2.5, out, -0.1, other, out)
            yield out, 2.5 * x if other is None else 2.5 * x + -0.1 * y
        out = np.empty(n)
        k.dense_multiply(x, y, out)
        yield out, x * y
        k.dense_divide(x, 3.0, out)
        yield out, x / 3.0
        for _ in range(2):
            yield np.array([k.dense_dot(x, y)]), np.array([x @ y])
    rng = np.random.default_rng(6)
    basis = np.linalg.qr(rng.standard_normal((5001, 4)))[0].T.copy()
    for count in (1, 3):
        w, along = rng.standard_normal(5001), np.empty(count)
        right = basis[:count] @ w
        rest = w - right @ basis[:count]
        k.dense_project(basis, count, w, along)
        yield along, right
        yield w, rest


def uneven(lengths: Any, columns: int, dtype: Any, index: Any) -> Csr[Any]:
    """Return a canonical matrix of rows of these lengths."""
    rng = np.random.default_rng(5)
    chosen = [np.sort(rng.permutation(columns)[:n]) for n in lengths]
    indptr = np.concatenate([[0], np.cumsum([row.size for row in chosen])])
    data = numbers(int(indptr[-1]), dtype)
    indices = np.concatenate(chosen).astype(index)
    return Csr(indptr.astype(index), indices, data, (len(lengths), columns))


def _solid(n: int, dtype: Any, index: Any) -> Csr[Any]:
    """Return a diagonally dominant matrix with the neighbours of each row, and more."""
    whole = dense(matrix((n, n), dtype, index, 0.3)) / n
    whole += np.diag(np.full(n, 4.0)) + np.diag(np.ones(n - 1), -1)
    whole[n - 1] = 0.1
    whole[n - 1, n - 1] = 4
    rows, columns = np.nonzero(whole)
    indptr = np.searchsorted(rows, np.arange(n + 1))
    data = whole[rows, columns].astype(dtype)
    return Csr(indptr.astype(index), columns.astype(index), data, (n, n))


def _strict(a: Csr[Any]) -> Csr[Any]:
    """Return the triangle left of the diagonal."""
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    kept = a.indices < rows
    counts = np.bincount(rows[kept], minlength=a.shape[0])
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(a.indptr.dtype)
    return Csr(ends, a.indices[kept], a.data[kept], a.shape)
