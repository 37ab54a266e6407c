"""What operations cost whose operands are not there yet, from bounds on their rows.

A profile says how many entries each row and each column of a matrix stores at most.
Every operation has a rule from profiles to a profile, so that a chain of them can be
priced before any of it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nnz_kernels.api.sparse import chosen
from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import KernelError
from nnz_kernels.formats import Csr
from nnz_service.algebra.operands import Estimate
from nnz_service.algebra.selections import check_scratch, picked
from nnz_service.algebra.sparse_ops import OPERATIONS
from nnz_service.errors import InvalidInputError, NotFoundError

#: Counts as floats: sums of products of counts pass 64 bits.
Counts = npt.NDArray[np.float64]
Shape = tuple[int, ...]

_MOST_32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Profile:
    """Bounds on where a matrix stores entries.

    Args:
        rows: Entries of each row at most (m,).
        columns: Entries of each column at most (n,).
        dtype: Of the entries.
        matrix: The matrix itself, where it is there; then the bounds are exact.
    """

    rows: Counts
    columns: Counts
    dtype: np.dtype[Any]
    matrix: Csr[HostArray] | None = None

    @classmethod
    def of(cls, a: Csr[HostArray]) -> Profile:
        """Return the profile of a matrix that is there; O(entries).

        Raises:
            TooLargeError: It has too many rows or columns to count.
        """
        check_scratch(max(a.shape), "row or column")
        rows = np.diff(a.indptr).astype(np.float64)
        columns = np.bincount(a.indices, minlength=a.shape[1]).astype(np.float64)
        return cls(rows, columns, a.data.dtype, a)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows.size, self.columns.size

    @property
    def nnz(self) -> int:
        """Entries at most."""
        return int(min(self.rows.sum(), self.columns.sum()))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays with so many entries."""
        index = 4 if max(self.nnz, *self.shape) <= _MOST_32 else 8
        return self.nnz * (index + self.dtype.itemsize) + (self.rows.size + 1) * index


Result = Profile | Shape
#: Work, flops, result.
_Priced = tuple[float, float, Result]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an operation's operands.

    Args:
        a: The matrix.
        b: The other matrix.
        dense: Dense operands, or their shapes.
        params: Of the operation.
        mask: Of a product.
    """

    a: Profile
    b: Profile | None = None
    dense: Mapping[str, HostArray | Shape] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    mask: Profile | None = None

    @property
    def other(self) -> Profile:
        """The other matrix.

        Raises:
            InvalidInputError: There is none.
        """
        if self.b is None:
            raise InvalidInputError("'other' must name a matrix")
        return self.b

    def shape(self, name: str) -> Shape:
        """Return the shape of a dense operand, for a complex matrix that in numbers.

        Raises:
            InvalidInputError: It is missing, or is not of pairs where it must be.
        """
        if name not in self.dense:
            raise InvalidInputError(f"the input {name!r} is missing")
        given = self.dense[name]
        shape = given if isinstance(given, tuple) else given.shape
        if not self.paired:
            return shape
        if shape[-1:] != (2,):
            raise InvalidInputError(
                f"{name} has shape {[*shape]}, but the matrix is complex: real and "
                "imaginary parts must come last"
            )
        return shape[:-1]

    @property
    def paired(self) -> bool:
        """Whether dense operands and results are of pairs."""
        return self.a.dtype.kind == "c"


def forecast(op: str, known: Known) -> tuple[Estimate, Result]:
    """Return what an operation costs at most, and what is known of its result.

    Args:
        op: One of `FORECASTS`.
        known: Its operands.

    Raises:
        NotFoundError: There is no such operation.
        InvalidInputError: Shapes do not fit.
        TooLargeError: There are too many rows or columns to count.
    """
    if op not in FORECASTS:
        raise NotFoundError(f"there is no operation {op!r} for a chain")
    takes = OPERATIONS[op].inputs if op in OPERATIONS else frozenset("x")
    for name in known.dense.keys() - takes:
        raise InvalidInputError(f"{op} has no input {name!r}; it takes {sorted(takes)}")
    work, flops, result = FORECASTS[op](known)
    if isinstance(result, Profile):
        nnz, nbytes = result.nnz, result.nbytes
    else:
        nnz = int(np.prod(result, dtype=np.float64))
        nbytes = nnz * known.a.dtype.itemsize
        if known.paired and op != "norm":  # which is real
            result = (*result, 2)
    return Estimate(int(work), int(flops), nnz, False, nbytes), result


def _product(known: Known) -> _Priced:
    a, b = known.a, known.other
    _fit(a.shape[1] == b.shape[0], f"{a.shape} cannot be multiplied with {b.shape}")
    products = float(a.columns @ b.rows)
    if a.matrix is None:
        rows = a.rows * b.rows.max(initial=0)
    else:
        done = np.concatenate([[0], np.cumsum(b.rows[a.matrix.indices])])
        rows = np.diff(done[a.matrix.indptr])
    columns = b.columns * a.columns.max(initial=0)
    dtype = np.result_type(a.dtype, b.dtype)
    each = 8 if dtype.kind == "c" else 2
    if known.mask is not None:
        mask, shape = known.mask, (a.shape[0], b.shape[1])
        _fit(mask.shape == shape, f"the mask is {mask.shape}, the product {shape}")
        rows, columns = np.minimum(rows, mask.rows), np.minimum(columns, mask.columns)
    return products + a.nnz + b.nnz, each * products, _bounded(rows, columns, dtype)


def _sum(known: Known) -> _Priced:
    a, b = known.a, known.other
    _fit(a.shape == b.shape, f"{a.shape} cannot be added to {b.shape}")
    nnz, dtype = a.nnz + b.nnz, np.result_type(a.dtype, b.dtype)
    return nnz, 3 * nnz, _bounded(a.rows + b.rows, a.columns + b.columns, dtype)


def _scaled(known: Known) -> _Priced:
    a = known.a
    for name, size in zip(("rows", "columns"), a.shape, strict=True):
        if name in known.dense:
            shape = known.shape(name)
            _fit(shape == (size,), f"{name} has shape {shape}, but needs ({size},)")
    return a.nnz, 2 * a.nnz, Profile(a.rows, a.columns, a.dtype)


def _turned(known: Known) -> _Priced:
    a = known.a
    return a.nnz + sum(a.shape), 0, Profile(a.columns, a.rows, a.dtype)


def _taken(known: Known) -> _Priced:
    a = known.a
    rows, often_row = _numbers(known, "rows")
    columns, often_column = _numbers(known, "columns")
    taken_rows = a.rows[rows] * often_column
    taken_columns = a.columns[columns] * often_row
    result = _bounded(taken_rows, taken_columns, a.dtype)
    return a.nnz + sum(a.shape) + result.nnz, 0, result


def _sampled(known: Known) -> _Priced:
    a, x, y = known.a, known.shape("x"), known.shape("y")
    m, n = a.shape
    right = len(x) == len(y) == 2 and (x[0], y[0]) == (m, n) and x[1] == y[1]
    _fit(right, f"x and y have shapes {x} and {y}, but need ({m}, k) and ({n}, k)")
    work = a.nnz * x[1]
    return max(work, a.nnz), 2 * work, Profile(a.rows, a.columns, a.dtype)


def _solved(known: Known) -> _Priced:
    a, b = known.a, known.shape("b")
    _fit(a.shape[0] == a.shape[1], f"{a.shape} has no triangles: not square")
    return _applied(a, b, a.shape[0], a.shape[0])


def _multiplied(known: Known) -> _Priced:
    m, n = known.a.shape
    if known.params.get("transpose") is True:
        m, n = n, m
    return _applied(known.a, known.shape("x"), n, m)


def _applied(a: Profile, x: Shape, takes: int, gives: int) -> _Priced:
    right = len(x) in (1, 2) and x[0] == takes
    _fit(right, f"the input has shape {x}, but needs ({takes},) or ({takes}, k)")
    width = x[1] if len(x) == 2 else 1
    return max(a.nnz * width, 1), 2 * a.nnz * width, (gives, *x[1:])


def _norm(known: Known) -> _Priced:
    return known.a.nnz, 2 * known.a.nnz, (1,)


def _sums(known: Known) -> _Priced:
    a = known.a
    return a.nnz + sum(a.shape), a.nnz, (a.shape[known.params.get("axis", 1) == 0],)


def _diagonal(known: Known) -> _Priced:
    return known.a.nnz + sum(known.a.shape), 0, (min(known.a.shape),)


def _bounded(rows: Counts, columns: Counts, dtype: np.dtype[Any]) -> Profile:
    """Return a profile whose rows are no longer than the matrix is wide."""
    m, n = rows.size, columns.size
    return Profile(np.minimum(rows, n), np.minimum(columns, m), dtype)


def _numbers(known: Known, name: str) -> tuple[slice | npt.NDArray[np.int64], int]:
    """Return what is picked, and how often the same at most."""
    size = known.a.shape[name == "columns"]
    arrays = {k: v for k, v in known.dense.items() if not isinstance(v, tuple)}
    _fit(
        arrays.keys() == known.dense.keys(),
        f"{name} must be integers that come with the request",
    )
    which = picked(known.params, arrays, name)
    if which is None or isinstance(which, slice):
        return which or slice(None), 1
    try:
        numbers = np.asarray(chosen(which, size, name[:-1]), np.int64)
    except KernelError as error:
        raise InvalidInputError(str(error)) from error
    return numbers, int(np.unique(numbers, return_counts=True)[1].max(initial=0))


def _fit(right: bool, wrong: str) -> None:
    if not right:
        raise InvalidInputError(f"shapes do not fit: {wrong}")


FORECASTS: dict[str, Callable[[Known], _Priced]] = {
    "spgemm": _product,
    "add": _sum,
    "scale": _scaled,
    "submatrix": _taken,
    "transpose": _turned,
    "sddmm": _sampled,
    "triangular_solve": _solved,
    "norm": _norm,
    "sums": _sums,
    "diagonal": _diagonal,
    "spmv": _multiplied,
    "spmm": _multiplied,
}
