from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels.sparse_cases import SHAPES, bits, close, dense, matrix, numbers, of, same

from nnz_kernels.api.sparse import NORMS, SparseOps
from nnz_kernels.backends import Backend, load_sparse
from nnz_kernels.convert import csr_to_scipy
from nnz_kernels.errors import DTypeError, ShapeError, StructureError
from nnz_kernels.formats import Csr
from nnz_kernels.hosted import hosted

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
#: No kernel treats numbers in another way where indices are wider.
PAIRS = [*((d, np.int32) for d in (np.float32, np.float64, np.complex128)),
         (np.float64, np.int64)]  # fmt: skip
STORED = pytest.mark.parametrize(("dtype", "index"), PAIRS)
EVERY = pytest.mark.parametrize("shape", SHAPES)
reference = load_sparse(Backend.REFERENCE)


@pytest.fixture(params=[Backend.REFERENCE, Backend.CPU, "cuda-emulated"])
def ops(request: pytest.FixtureRequest) -> SparseOps[Any]:
    return opened(request, request.param)


@pytest.fixture(params=[Backend.CPU, "cuda-emulated"])
def fast(request: pytest.FixtureRequest) -> SparseOps[Any]:
    return opened(request, request.param)


def opened(request: pytest.FixtureRequest, name: str) -> Any:
    if name == "cuda-emulated":
        return hosted(request.getfixturevalue("emulated"))
    return load_sparse(Backend(name))


class TestByHand:
    """Against small integers."""

    def test_product(self, ops: SparseOps[Any]) -> None:
        """[[1, 2], [0, 0]] times [[0, 3], [4, 0]]; an empty row stays empty."""
        c = ops.spgemm(of([[1, 2], [0, 0]]), of([[0, 3], [4, 0]]))

        assert c.indptr.tolist() == [0, 2, 2]
        assert c.indices.tolist() == [0, 1]
        assert c.data.tolist() == [8, 3]

    def test_cancelled_entries_stay(self, ops: SparseOps[Any]) -> None:
        """1 * 1 + 1 * -1 is an entry of value 0, and so is 5 - 5 in a sum."""
        c = ops.spgemm(of([[1, 1]]), of([[1], [-1]]))
        d = ops.add(1, of([[5, 1]]), -1, of([[5, 0]]))

        assert (c.indices.tolist(), c.data.tolist()) == ([0], [0])
        assert (d.indices.tolist(), d.data.tolist()) == ([0, 1], [0, 1])

    def test_sum(self, ops: SparseOps[Any]) -> None:
        """2 A - B on the union of both patterns."""
        c = ops.add(2, of([[1, 0, 3], [0, 0, 0]]), -1, of([[0, 4, 1], [7, 0, 0]]))

        assert dense(c).tolist() == [[2, -4, 5], [-7, 0, 0]]
        assert c.indptr.tolist() == [0, 3, 4]

    def test_scale(self, ops: SparseOps[Any]) -> None:
        """Rows by 10 and 100, columns by 1, 2, 3."""
        c = ops.scale(
            of([[1, 1, 1], [0, 1, 0]]), np.array([10.0, 100]), np.array([1.0, 2, 3])
        )

        assert dense(c).tolist() == [[10, 20, 30], [0, 200, 0]]

    def test_submatrix(self, ops: SparseOps[Any]) -> None:
        """Slices with steps, lists in any order, repeats, negative numbers."""
        a = of([[1, 2, 3], [4, 5, 6], [7, 8, 9]])

        assert dense(ops.submatrix(a, slice(None, None, -2), [2, 0, 0])).tolist() == [
            [9, 7, 7],
            [3, 1, 1],
        ]
        assert dense(ops.submatrix(a, [-1], None)).tolist() == [[7, 8, 9]]
        assert ops.submatrix(a, [], slice(1, 1)).shape == (0, 0)

    def test_transpose(self, ops: SparseOps[Any]) -> None:
        """Complex, conjugated and not."""
        a = of([[1 + 2j, 0, 3]], np.complex128)

        assert dense(ops.transpose(a)).tolist() == [[1 + 2j], [0], [3]]
        assert dense(ops.transpose(a, conjugate=True)).tolist() == [[1 - 2j], [0], [3]]

    def test_triangles(self, ops: SparseOps[Any]) -> None:
        """[[2, 9], [4, 5]]: each ignores the other, a unit one its diagonal."""
        a, b = of([[2, 9], [4, 5]]), np.array([2.0, 14])

        assert ops.triangular_solve(a, b).tolist() == [1, 2]
        assert ops.triangular_solve(a, b, unit_diagonal=True).tolist() == [2, 6]
        assert ops.triangular_solve(a, np.array([11.0, 5]), lower=False).tolist() == [
            1,
            1,
        ]

    def test_sddmm(self, ops: SparseOps[Any]) -> None:
        """The pattern's own values do not matter."""
        x, y = np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 1], [10, 100]])

        assert dense(ops.sddmm(of([[0, 7], [7, 0]]), x, y)).tolist() == [
            [0, 210],
            [7, 0],
        ]

    def test_norms_sums_diagonal(self, ops: SparseOps[Any]) -> None:
        """[[3, -4], [0, 0], [0, 1]]."""
        a = of([[3, -4], [0, 0], [0, 1]])

        assert [ops.norm(a, kind) for kind in NORMS] == [5, 7, np.sqrt(26), 4]
        assert ops.sums(a, 0).tolist() == [3, -3]
        assert ops.sums(a, 1).tolist() == [-1, 0, 1]
        assert ops.diagonal(a).tolist() == [3, 0]

    def test_canonical(self, ops: SparseOps[Any]) -> None:
        """An unsorted row that stores column 2 twice."""
        a = Csr(
            np.array([0, 3, 3], np.int32),
            np.array([2, 0, 2], np.int32),
            np.array([1.0, 5.0, 10.0]),
            (2, 3),
        )
        c = ops.canonical(a)

        assert c.indptr.tolist() == [0, 2, 2]
        assert (c.indices.tolist(), c.data.tolist()) == ([0, 2], [5, 11])
        assert ops.canonical(c).data.tolist() == [5, 11]


class TestEqualsReference:
    """Every type at odd sizes."""

    @STORED
    @EVERY
    def test_products(
        self, fast: SparseOps[Any], dtype: Any, index: Any, shape: tuple[int, int]
    ) -> None:
        """At once, planned, counted; few and many products a row."""
        k = shape[1]
        for density in (0.05, 0.6):
            a = matrix(shape, dtype, index, density)
            b = matrix((k, shape[0] + 3), dtype, index, density, seed=9)
            wanted = reference.spgemm(a, b)
            plan = fast.plan_product(a, b)
            same(fast.spgemm(a, b), wanted)
            assert bits(fast.planned_product(plan, a, b)) == bits(fast.spgemm(a, b))
            assert fast.product_counts(a, b).tolist() == wanted.indptr.tolist()
            size = fast.product_size(a, b)
            assert size == reference.product_size(a, b)
            assert wanted.nnz <= size.bound <= size.products

    @STORED
    @EVERY
    def test_the_rest(
        self, fast: SparseOps[Any], dtype: Any, index: Any, shape: tuple[int, int]
    ) -> None:
        """Sums, transposes, scales, pieces, sddmm, sums of rows, diagonals, norms."""
        m, n = shape
        a, b = matrix(shape, dtype, index), matrix(shape, dtype, index, seed=11)
        rows, columns = numbers((m,), dtype), numbers((n,), dtype)
        x, y = numbers((m, 5), dtype), numbers((n, 5), dtype)
        picked = ([*range(0, m, 2)], slice(None, None, -1))

        same(fast.add(2, a, -0.5, b), reference.add(2, a, -0.5, b))
        same(fast.transpose(a, conjugate=True), reference.transpose(a, conjugate=True))
        same(fast.scale(a, rows, columns), reference.scale(a, rows, columns))
        same(fast.submatrix(a, *picked), reference.submatrix(a, *picked))
        same(fast.sddmm(a, x, y), reference.sddmm(a, x, y))
        close(fast.diagonal(a), reference.diagonal(a))
        for axis in (0, 1):
            close(fast.sums(a, axis), reference.sums(a, axis))
        for kind in NORMS:
            wanted = pytest.approx(reference.norm(a, kind), rel=1e-6)
            assert fast.norm(a, kind) == wanted

    @STORED
    @pytest.mark.parametrize("lower", [True, False])
    @pytest.mark.parametrize("width", [None, 0, 1, 7])
    def test_triangles(
        self, fast: SparseOps[Any], dtype: Any, index: Any, lower: bool, width: Any
    ) -> None:
        """Vectors and blocks, with the stored diagonal and with ones."""
        n = 41
        a = matrix((n, n), dtype, index)
        full = fast.add(0.2, a, 1, _identity(n, dtype, index))
        b = numbers((n,) if width is None else (n, width), dtype)
        for unit in (False, True):
            given = {"lower": lower, "unit_diagonal": unit}
            wanted = reference.triangular_solve(full, b, **given)
            close(fast.triangular_solve(full, b, **given), wanted)

    @TYPES
    def test_unsorted_and_duplicate(self, fast: SparseOps[Any], dtype: Any) -> None:
        """`canonical` and `transpose` take any order, and entries stored twice."""
        rng = np.random.default_rng(5)
        a = Csr(
            np.array([0, 40, 40, 100], np.int32),
            rng.integers(0, 30, 100).astype(np.int32),
            numbers(100, dtype),
            (3, 30),
        )

        same(fast.canonical(a), reference.canonical(a))
        same(fast.transpose(a), reference.transpose(a))


def _identity(n: int, dtype: Any, index: Any) -> Csr[Any]:
    steps = np.arange(n + 1, dtype=index)
    return Csr(steps, steps[:-1], np.ones(n, dtype), (n, n))


#: Columns that lie close, that each may have a cell, and that may not.
WIDTHS = [(*pair, columns) for pair in PAIRS for columns in (500, (1 << 24) + 7, 2**40)
          if columns <= np.iinfo(pair[1]).max]  # fmt: skip


@pytest.mark.parametrize(("dtype", "index", "columns"), WIDTHS)
def test_narrow_wide_and_very_wide_results(
    fast: SparseOps[Any], dtype: Any, index: Any, columns: int
) -> None:
    """Ranks, dense rows and hash tables give one answer, in order."""
    a = matrix((40, 60), dtype, index, 0.4)
    near = matrix((60, 500), dtype, index, 0.2, seed=4)
    b = replace(
        near, indices=near.indices * ((columns - 1) // 499), shape=(60, columns)
    )
    plan = fast.plan_product(a, b)

    same(fast.spgemm(a, b), reference.spgemm(a, b))
    assert bits(fast.planned_product(plan, a, b)) == bits(fast.spgemm(a, b))


def test_equals_scipy() -> None:
    """Products and sums of matrices with thousands of rows."""
    cpu = load_sparse(Backend.CPU)
    a, b = matrix((3000, 2000), density=0.01), matrix((2000, 2500), density=0.01)
    c = csr_to_scipy(a) @ csr_to_scipy(b)
    c.sort_indices()
    found = csr_to_scipy(cpu.spgemm(a, b))

    assert abs(found - c).max() < 1e-12
    assert abs(csr_to_scipy(cpu.add(2, a, 3, a)) - 5 * csr_to_scipy(a)).max() < 1e-12


@pytest.mark.usefixtures("three_threads")
@TYPES
def test_threads_change_no_bit(dtype: Any) -> None:
    """One, two or three threads."""
    cpu = load_sparse(Backend.CPU)
    a, b = matrix((200, 150), dtype), matrix((150, 170), dtype, seed=2)
    square = cpu.add(0.1, matrix((90, 90), dtype), 1, _identity(90, dtype, np.int32))
    x, y = numbers((200, 9), dtype), numbers((150, 9), dtype)
    answers = []
    for threads in (1, 2, 3):
        plan = cpu.plan_product(a, b, threads=threads)
        found = bits(
            cpu.spgemm(a, b, threads=threads),
            cpu.planned_product(plan, a, b, threads=threads),
            cpu.add(1, a, 2, a, threads=threads),
            cpu.transpose(a, threads=threads),
            cpu.sddmm(a, x, y, threads=threads),
        )
        x90 = cpu.triangular_solve(square, x[:90], threads=threads)
        answers.append([*found, x90.tobytes()])

    assert answers[0] == answers[1] == answers[2]


def test_a_block_has_the_bits_of_its_vectors(fast: SparseOps[Any]) -> None:
    """Triangular solves of seven columns and of one."""
    a = fast.add(0.2, matrix((50, 50)), 1, _identity(50, np.float64, np.int32))
    b = numbers((50, 7), np.float64)
    block = fast.triangular_solve(a, b)

    for k in range(7):
        alone = fast.triangular_solve(a, np.ascontiguousarray(b[:, k]))
        assert alone.tobytes() == block[:, k].tobytes()


def test_a_nan_stays_in_its_row(ops: SparseOps[Any]) -> None:
    """And an infinity makes one where it meets its opposite."""
    c = ops.spgemm(of([[np.nan, 0], [1, 1]]), of([[np.inf, 1], [-np.inf, 1]]))

    assert np.isnan(dense(c)).tolist() == [[True, True], [True, False]]
    assert np.isnan(ops.norm(of([[np.nan, 1]]), "max"))


def test_refusals(ops: SparseOps[Any]) -> None:
    """What does not fit is named, with both sizes or both types."""
    a, thin = of([[1, 2, 3]]), of([[1, 2, 3]], np.float32)
    square = of([[1, 0], [1, 0]])
    plan = ops.plan_product(a, of([[1], [0], [0]]))
    with pytest.raises(ShapeError, match=r"\(1, 3\) cannot be multiplied .* \(1, 3\)"):
        ops.spgemm(a, a)
    with pytest.raises(ShapeError, match=r"the plan is for .* \(3, 1\) entries"):
        ops.planned_product(plan, a, of([[1], [1], [1]]))
    with pytest.raises(DTypeError, match="float64 with indices int32, the other floa"):
        ops.add(1, a, 1, thin)
    with pytest.raises(DTypeError, match="must be real for float64"):
        ops.add(1j, a, 1, a)
    with pytest.raises(ShapeError, match=r"\(1, 3\) cannot be added"):
        ops.add(1, a, 1, square)
    with pytest.raises(ShapeError, match="column 3 does not exist: there are 3"):
        ops.submatrix(a, None, [0, 3])
    with pytest.raises(ShapeError, match="factors of rows are float64 of shape"):
        ops.scale(a, np.ones(2), None)
    with pytest.raises(ShapeError, match="not square"):
        ops.triangular_solve(a, np.ones(1))
    with pytest.raises(StructureError, match="row 1 is zero or missing"):
        ops.triangular_solve(square, np.ones(2))
    with pytest.raises(ShapeError, match=r"must have \(1, k\) and \(3, k\)"):
        ops.sddmm(a, np.ones((1, 2)), np.ones((3, 4)))
    with pytest.raises(DTypeError, match="holds int64"):
        ops.sums(replace(a, data=np.array([1, 2, 3])), 0)
