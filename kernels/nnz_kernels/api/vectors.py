"""Sparse vectors: linear combinations and inner products of unsorted pairs."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np

from nnz_kernels.arrays import FLOATS, INDICES, HostArray, Workspace
from nnz_kernels.errors import DTypeError, ShapeError, StructureError
from nnz_kernels.formats import Ragged, SparseVector

A = TypeVar("A")

#: What happens to entries of the result that are exactly zero.
Zeros = Literal["keep", "drop_exact"]

#: What happens when one operand holds an index twice.
Duplicates = Literal["sum", "error", "last"]

_ZEROS, _DUPLICATES = get_args(Zeros), get_args(Duplicates)


class VectorOps(Protocol[A]):
    """Operations on sparse vectors; values float32 or float64, one type a call.

    All cost O(nnz) of the operands, never O(size): algorithm after CSparse's
    ``cs_scatter``, with positions kept beside the marks.

    Zeros: ``keep`` stores every index of an operand, also when its value is 0.0, -0.0,
    has underflowed or has cancelled, so that the pattern depends on patterns alone;
    ``drop_exact`` leaves out every entry of the result that equals zero. A NaN is an
    ordinary value and is never dropped.

    Duplicates, within one operand: ``sum`` adds them, ``last`` lets the later replace
    the earlier, ``error`` raises StructureError. The result never holds an index twice.

    Raises, all of them: ShapeError for sizes that differ; DTypeError for types that
    differ or are not float32/float64 with int32/int64 indices.
    """

    def axpy(
        self,
        u: SparseVector[A],
        r: float,
        v: SparseVector[A],
        /,
        *,
        workspace: Workspace | None = None,
        zeros: Zeros = "keep",
        duplicates: Duplicates = "sum",
    ) -> SparseVector[A]:
        """Return ``u + r * v``.

        Args:
            u: First operand.
            r: Factor, rounded to the type of the values; product and sum round apart.
            v: Second operand, of the types and size of *u*.
            workspace: Scratch to use; by default one that each thread keeps.
            zeros: See the class.
            duplicates: See the class.

        Returns:
            A vector in the order of *u*, then what *v* alone has, as it first appears.
        """
        ...

    def dot(
        self,
        u: SparseVector[A],
        v: SparseVector[A],
        /,
        *,
        workspace: Workspace | None = None,
    ) -> float:
        """Return the sum of ``u[i] * v[i]``, added in float64, duplicates summed."""
        ...

    def gather(self, x: A, indices: A, /) -> A:
        """Return ``x[indices]`` of a dense vector *x*.

        Raises:
            ShapeError: An index lies outside *x*.
        """
        ...

    def scatter(self, u: SparseVector[A], /) -> A:
        """Return *u* as a dense vector of ``u.size`` entries; duplicates are summed."""
        ...

    def axpy_many(
        self,
        us: Ragged[A],
        r: HostArray,
        vs: Ragged[A],
        /,
        *,
        zeros: Zeros = "keep",
        duplicates: Duplicates = "sum",
        threads: int | None = None,
    ) -> Ragged[A]:
        """Return ``us[k] + r[k] * vs[k]`` for every k, as `axpy` would.

        Args:
            us: K vectors.
            r: K factors.
            vs: K vectors.
            zeros: See the class.
            duplicates: See the class.
            threads: How many threads may work; None means all.
        """
        ...

    def dot_many(
        self, us: Ragged[A], vs: Ragged[A], /, *, threads: int | None = None
    ) -> A:
        """Return K inner products as float64, each equal to what `dot` gives."""
        ...

    def combine(
        self,
        u0: SparseVector[A],
        r: HostArray,
        vs: Ragged[A],
        /,
        *,
        workspace: Workspace | None = None,
        zeros: Zeros = "keep",
    ) -> SparseVector[A]:
        """Return ``u0 + sum over k of r[k] * vs[k]``; duplicates are summed.

        Costs nnz(u0) + nnz(vs), where K calls of `axpy` would pass over the growing sum
        K times. The order is that of first appearance.
        """
        ...


def check_vectors(
    u: SparseVector[Any] | Ragged[Any], v: SparseVector[Any] | Ragged[Any]
) -> None:
    """Refuse operands whose sizes, counts or types differ."""
    if u.size != v.size:
        raise ShapeError(
            f"the vectors have sizes {u.size} and {v.size}; make them equal"
        )
    if u.values.dtype not in FLOATS or v.values.dtype != u.values.dtype:
        raise DTypeError(
            f"the values are {u.values.dtype} and {v.values.dtype}, but both must be "
            "float32 or both float64"
        )
    if u.indices.dtype not in INDICES or v.indices.dtype != u.indices.dtype:
        raise DTypeError(
            f"the indices are {u.indices.dtype} and {v.indices.dtype}, but both must "
            "be int32 or both int64"
        )
    if isinstance(u, Ragged) and isinstance(v, Ragged) and u.count != v.count:
        raise ShapeError(f"there are {u.count} and {v.count} vectors; make them equal")


def check_policies(zeros: str, duplicates: str = "sum") -> None:
    """Refuse a policy that does not exist."""
    if zeros not in _ZEROS:
        raise ValueError(f"zeros is {zeros!r}, but must be one of {_ZEROS}")
    if duplicates not in _DUPLICATES:
        raise ValueError(
            f"duplicates is {duplicates!r}, but must be one of {_DUPLICATES}"
        )


def check_factors(r: Any, count: int, dtype: np.dtype[Any]) -> HostArray:
    """Return K factors in the type of the values, or raise ShapeError."""
    with np.errstate(over="ignore"):  # a factor beyond float32 is an infinity
        factors = np.ascontiguousarray(r, dtype=dtype)
    if factors.shape != (count,):
        raise ShapeError(f"r has shape {factors.shape}, but must be ({count},)")
    return factors


def check_factor(r: Any, dtype: np.dtype[Any]) -> Any:
    """Return one factor in the type of the values, or raise ShapeError."""
    if type(r) is float and dtype == np.float64:  # as nearly always: this costs nothing
        return r
    return check_factors([r], 1, dtype)[0]


def check_gather(x: Any, indices: Any) -> None:
    """Refuse indices outside a dense vector."""
    if x.ndim != 1 or indices.ndim != 1:
        raise ShapeError(f"x and indices have {x.ndim} and {indices.ndim} axes, not 1")
    if indices.dtype not in INDICES:
        raise DTypeError(f"indices are {indices.dtype}, but must be int32 or int64")
    wrong = (indices < 0) | (indices >= x.shape[0])
    if wrong.any():
        at = int(wrong.argmax())
        raise ShapeError(
            f"indices[{at}] is {indices[at]}, but must be from 0 to {x.shape[0] - 1}"
        )


def duplicate_error(name: str, position: int, index: int) -> StructureError:
    """Return the error of ``duplicates="error"``."""
    return StructureError(
        f"{name}[{position}] repeats the index {index}, but duplicates are refused"
    )
