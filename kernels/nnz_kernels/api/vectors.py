"""Sparse vectors: linear combinations and inner products of unsorted pairs."""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar

from nnz_kernels.arrays import HostArray, Workspace
from nnz_kernels.formats import Ragged, SparseVector

A = TypeVar("A")

#: What happens to entries of the result that are exactly zero.
Zeros = Literal["keep", "drop_exact"]

#: What happens when one operand holds an index twice.
Duplicates = Literal["sum", "error", "last"]


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
