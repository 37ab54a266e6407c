"""Ops between sparse matrices: products, sums, pieces, triangles, norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from nnz_kernels.arrays import ENTRIES, INDICES
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.formats import Csr

A = TypeVar("A")
B = TypeVar("B")

Norm = Literal["1", "inf", "fro", "max"]
NORMS: tuple[Norm, ...] = ("1", "inf", "fro", "max")

Semiring = Literal["plus_times", "min_plus", "or_and", "max_times"]

#: Rows or columns to take: a range, or any numbers in any order, repeats included.
Selection = slice | Sequence[int]


@dataclass(frozen=True, slots=True)
class ProductSize:
    """What a product of two sparse matrices costs, before it is computed.

    Args:
        products: Multiplications of two entries; the flops are twice as many.
        bound: Entries of the result at most: in each row the products, or the columns
            where these are fewer.
    """

    products: int
    bound: int


@dataclass(frozen=True, slots=True)
class ProductPlan(Generic[A]):
    """The pattern of a product, for operands of the same patterns again and again.

    Args:
        indptr: Row pointers of the result.
        indices: Its columns, ascending in each row.
        shape: Its rows and columns.
        entries: Stored entries of both operands.
    """

    indptr: A
    indices: A
    shape: tuple[int, int]
    entries: tuple[int, int]

    @property
    def nnz(self) -> int:
        """Entries of the result."""
        # an array of whatever back-end, of which the type says nothing
        return int(self.indices.shape[0])  # type: ignore[attr-defined]

    def map(self, move: Callable[[A], B], /) -> ProductPlan[B]:
        """Return the same plan with each array moved, say to the device."""
        moved = move(self.indptr), move(self.indices)
        return ProductPlan(*moved, self.shape, self.entries)


class SemiringOps(Protocol[A]):
    """Products over other semirings, and of which only a part is wanted."""

    def semiring_product(
        self,
        a: Csr[A],
        b: Csr[A],
        semiring: Semiring,
        mask: Csr[A] | None = None,
        /,
        *,
        threads: int | None = None,
    ) -> Csr[A]:
        """Return ``a @ b`` over a semiring, or those entries that a mask stores.

        Only what the mask wants is computed; its values are not read. Products are
        added in the order of the columns of *a*; ``min_plus`` and ``max_times`` pass a
        NaN on, ``or_and`` gives ones and zeros. The indices of the result are the wider
        of those of the factors and of the mask.
        """
        ...

    def semiring_spmv(
        self, a: Csr[A], x: A, semiring: Semiring, /, *, threads: int | None = None
    ) -> A:
        """Return ``a @ x``, (m,), over a semiring; x is (n,) of the type of *a*.

        A row without entries gives the semiring's zero.
        """
        ...


class SparseOps(Protocol[A]):
    """Ops from sparse matrices to sparse matrices, vectors and numbers.

    Data float32, float64 or complex128; two operands are of one type, and have indices
    of one type. Matrices come in canonical form, columns ascending in each row and none
    twice, which `canonical` makes; results are in that form. Entries that are zero,
    stored or by cancellation, are entries like any other: the pattern of a result
    depends on patterns alone. The indices of a result are those of the operands, or
    int64 where it has more entries than an int32 counts. No answer depends on
    the number of threads.

    Raises, all of them: ShapeError for sizes that do not fit; DTypeError for types that
    differ or that no kernel takes. Structure is trusted: call ``check`` of a matrix
    first.
    """

    def canonical(self, a: Csr[A], /) -> Csr[A]:
        """Return *a* with sorted rows, where what was stored twice is added up.

        Entries of one place are added in their stored order. A matrix that is
        canonical already is returned as it is.
        """
        ...

    def product_size(self, a: Csr[A], b: Csr[A], /) -> ProductSize:
        """Return what ``a @ b`` costs, in O(nnz(a))."""
        ...

    def product_counts(
        self, a: Csr[A], b: Csr[A], /, *, threads: int | None = None
    ) -> A:
        """Return the row pointers, int64 (m + 1,), that ``a @ b`` will have."""
        ...

    def plan_product(
        self, a: Csr[A], b: Csr[A], /, *, threads: int | None = None
    ) -> ProductPlan[A]:
        """Return the pattern of ``a @ b`` (the symbolic phase)."""
        ...

    def planned_product(
        self,
        plan: ProductPlan[A],
        a: Csr[A],
        b: Csr[A],
        /,
        *,
        threads: int | None = None,
    ) -> Csr[A]:
        """Return ``a @ b`` (the numeric phase), which shares the plan's pattern.

        The operands must have the patterns that the plan was made of; shapes and
        counts of entries are compared. Same bits as `spgemm`.
        """
        ...

    def spgemm(self, a: Csr[A], b: Csr[A], /, *, threads: int | None = None) -> Csr[A]:
        """Return ``a @ b``: a (m, k), b (k, n), result (m, n).

        Gustavson 1978, row by row; the products of an entry are added in the order of
        the columns of *a*.
        """
        ...

    def add(
        self,
        alpha: complex,
        a: Csr[A],
        beta: complex,
        b: Csr[A],
        /,
        *,
        threads: int | None = None,
    ) -> Csr[A]:
        """Return ``alpha * a + beta * b``, on the union of both patterns.

        Raises:
            DTypeError: A factor is complex and the matrices are real.
        """
        ...

    def scale(self, a: Csr[A], rows: A | None, columns: A | None, /) -> Csr[A]:
        """Return ``diag(rows) @ a @ diag(columns)``; None leaves that side as it is.

        Factors (m,) and (n,) of the type of the matrix; the result shares its pattern.
        """
        ...

    def submatrix(
        self, a: Csr[A], rows: Selection | None, columns: Selection | None, /
    ) -> Csr[A]:
        """Return ``a[rows][:, columns]``; None takes all.

        Slices as in Python, steps and negative numbers included.

        Raises:
            ShapeError: A number is outside of the matrix.
        """
        ...

    def transpose(
        self, a: Csr[A], /, *, conjugate: bool = False, threads: int | None = None
    ) -> Csr[A]:
        """Return the transpose, or the conjugate transpose, of any checked matrix.

        Rows of the result are sorted even where those of *a* are not.
        """
        ...

    def triangular_solve(
        self,
        a: Csr[A],
        b: A,
        /,
        *,
        lower: bool = True,
        unit_diagonal: bool = False,
        threads: int | None = None,
    ) -> A:
        """Return x of ``T x = b``, T the named triangle of *a*; the rest is not read.

        *b* is (n,), or (n, k) in C order; each column has the bits of a lone vector.
        With a unit diagonal the stored one is not read either.

        Raises:
            StructureError: A diagonal entry is zero or missing; it names the row.
        """
        ...

    def sddmm(
        self, pattern: Csr[A], x: A, y: A, /, *, threads: int | None = None
    ) -> Csr[A]:
        """Return ``x[i] . y[j]``, unconjugated, at each entry (i, j) of a pattern.

        x is (m, k) and y (n, k), in C order and of the type of the pattern's data,
        which is not read.
        """
        ...

    def norm(self, a: Csr[A], kind: Norm, /) -> float:
        """Return the largest column sum, the largest row sum (both of magnitudes), the
        square root of the sum of squares, or the largest magnitude; 0 for nothing.
        """
        ...

    def sums(self, a: Csr[A], axis: int, /) -> A:
        """Return the sums of columns (axis 0, (n,)) or of rows (axis 1, (m,))."""
        ...

    def diagonal(self, a: Csr[A], /) -> A:
        """Return the entries (i, i), (min(m, n),); 0 where none is stored."""
        ...


def check_matrix(a: Csr[Any], name: str = "the matrix") -> None:
    """Refuse types that no kernel takes.

    Raises:
        DTypeError: It names the type and those that would do.
    """
    if a.data.dtype not in ENTRIES:
        raise DTypeError(
            f"{name} holds {a.data.dtype}, but must hold {', '.join(map(str, ENTRIES))}"
        )
    if a.indices.dtype not in INDICES or a.indptr.dtype != a.indices.dtype:
        raise DTypeError(
            f"indptr of {name} is {a.indptr.dtype} and indices {a.indices.dtype}, but "
            "both must be int32 or both int64"
        )


def check_pair(a: Csr[Any], b: Csr[Any]) -> None:
    """Refuse two matrices that are not of the same types."""
    check_matrix(a, "the first matrix")
    check_matrix(b, "the second matrix")
    if a.data.dtype != b.data.dtype or a.indices.dtype != b.indices.dtype:
        raise DTypeError(
            f"one matrix holds {a.data.dtype} with indices {a.indices.dtype}, the "
            f"other {b.data.dtype} with {b.indices.dtype}, but both must be alike"
        )


def check_factors(a: Csr[Any], b: Csr[Any]) -> None:
    """Refuse two matrices that cannot be multiplied."""
    check_pair(a, b)
    if a.shape[1] != b.shape[0]:
        raise ShapeError(
            f"a matrix of shape {a.shape} cannot be multiplied with one of shape "
            f"{b.shape}: {a.shape[1]} columns meet {b.shape[0]} rows"
        )


def check_plan(plan: ProductPlan[Any], a: Csr[Any], b: Csr[Any]) -> None:
    """Refuse operands that a plan was not made of, as far as sizes tell."""
    check_factors(a, b)
    shape = (a.shape[0], b.shape[1])
    if plan.shape != shape or plan.entries != (a.nnz, b.nnz):
        raise ShapeError(
            f"the plan is for a result of shape {plan.shape} from {plan.entries} "
            f"entries, but these operands have {(a.nnz, b.nnz)} and give {shape}"
        )


def check_sum(a: Csr[Any], b: Csr[Any], factors: Sequence[complex]) -> None:
    """Refuse matrices that cannot be added, and complex factors of real ones."""
    check_pair(a, b)
    if a.shape != b.shape:
        raise ShapeError(
            f"a matrix of shape {a.shape} cannot be added to one of shape {b.shape}"
        )
    if a.data.dtype.kind != "c" and any(isinstance(f, complex) for f in factors):
        raise DTypeError(
            f"the factors are {tuple(factors)}, but must be real for {a.data.dtype}"
        )


def check_scales(a: Csr[Any], rows: Any, columns: Any) -> None:
    """Refuse factors that do not fit the sides of a matrix."""
    check_matrix(a)
    for name, given, size in (
        ("rows", rows, a.shape[0]),
        ("columns", columns, a.shape[1]),
    ):
        if given is not None and (
            given.shape != (size,) or given.dtype != a.data.dtype
        ):
            raise ShapeError(
                f"the factors of {name} are {given.dtype} of shape {given.shape}, but "
                f"must be {a.data.dtype} of shape ({size},)"
            )


def check_triangle(a: Csr[Any], b: Any) -> None:
    """Refuse a right-hand side that does not fit a square matrix."""
    check_matrix(a)
    n = a.shape[0]
    if a.shape[1] != n:
        raise ShapeError(f"a matrix of shape {a.shape} has no triangles: not square")
    if b.ndim not in (1, 2) or b.shape[0] != n:
        raise ShapeError(
            f"the right-hand side has shape {b.shape}, but must be ({n},) or ({n}, k)"
        )
    if b.dtype != a.data.dtype:
        raise DTypeError(
            f"the right-hand side is {b.dtype}, but the matrix holds {a.data.dtype}"
        )


def check_sampled(pattern: Csr[Any], x: Any, y: Any) -> None:
    """Refuse dense factors that do not fit a pattern."""
    check_matrix(pattern)
    m, n = pattern.shape
    fits = x.ndim == y.ndim == 2 and (x.shape[0], y.shape[0]) == (m, n)
    if not fits or x.shape[1] != y.shape[1]:
        raise ShapeError(
            f"the dense factors have shapes {x.shape} and {y.shape}, but must have "
            f"({m}, k) and ({n}, k)"
        )
    if x.dtype != pattern.data.dtype or y.dtype != pattern.data.dtype:
        raise DTypeError(
            f"the dense factors are {x.dtype} and {y.dtype}, but the pattern holds "
            f"{pattern.data.dtype}"
        )


def chosen(which: Selection | None, size: int, name: str) -> range | Sequence[int]:
    """Return the numbers that a selection takes of *size* rows or columns.

    Raises:
        ShapeError: One is outside.
    """
    if which is None:
        return range(size)
    if isinstance(which, slice):
        return range(*which.indices(size))
    for number in (min(which, default=0), max(which, default=0)):
        if len(which) and not -size <= number < size:
            raise ShapeError(
                f"{name} {number} does not exist: there are {size}, so that numbers go "
                f"from {-size} to {size - 1}"
            )
    return [int(number) % size for number in which]
