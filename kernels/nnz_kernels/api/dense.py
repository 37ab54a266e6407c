"""Dense vectors of iterative methods, where they do not lie in the host's memory."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

from nnz_kernels.api.factors import FactorOps
from nnz_kernels.api.products import ProductOps
from nnz_kernels.errors import DTypeError, ShapeError

A = TypeVar("A")
#: What an op only takes.
Given = TypeVar("Given", contravariant=True)

_FLOAT64 = np.dtype(np.float64)


class DenseOps(Protocol[Given]):
    """Sums and products of float64 vectors, (n,) in C order.

    The arrays of the host are NumPy's, which have all of these themselves; what is no
    sum of many numbers has their bits here.

    Raises, all of them: ShapeError for sizes that do not fit; DTypeError for types
    other than float64.
    """

    def dense_axpby(
        self, a: float, x: Given, b: float, y: Given | None, out: Given, /
    ) -> None:
        """Write ``a x + b y``, or ``a x`` without y; *out* may be x or y."""
        ...

    def dense_multiply(self, x: Given, y: Given, out: Given, /) -> None:
        """Write ``x y``, element by element; *out* may be x or y."""
        ...

    def dense_divide(self, x: Given, divisor: float, out: Given, /) -> None:
        """Write ``x / divisor``; *out* may be x."""
        ...

    def dense_dot(self, x: Given, y: Given, /) -> float:
        """Return ``x . y``, in an order that depends on n alone."""
        ...

    def dense_project(
        self, basis: Given, count: int, w: Given, along: Given, /
    ) -> None:
        """Take out of w what lies along the first *count* rows of a basis (m, n).

        By classical Gram-Schmidt, twice, which is enough (Giraud, Langou, Rozloznik
        and van den Eshof 2005). How much there was is written to *along*, (count,).
        """
        ...


class SolverOps(DenseOps[A], FactorOps[A], ProductOps[A], Protocol[A]):
    """What an iterative method needs of a device to stay there."""


def check_basis(basis: Any, count: int, w: Any, along: Any) -> int:
    """Return n, or raise ShapeError or DTypeError."""
    n = check_vectors(w)
    if basis.dtype != _FLOAT64:
        raise DTypeError(f"the basis holds {basis.dtype}, but must hold float64")
    if check_vectors(along) != count:
        raise ShapeError(f"{along.shape} numbers do not fit {count} rows")
    if basis.ndim != 2 or basis.shape[1] != n or not 1 <= count <= basis.shape[0]:
        raise ShapeError(f"{count} rows of a basis {basis.shape} do not fit ({n},)")
    return n


def check_vectors(*vectors: Any) -> int:
    """Return n, or raise ShapeError or DTypeError."""
    shape = vectors[0].shape
    for vector in vectors:
        if vector.dtype != _FLOAT64:
            raise DTypeError(f"a vector holds {vector.dtype}, but must hold float64")
        if vector.ndim != 1 or vector.shape != shape:
            raise ShapeError(f"vectors have shapes {shape} and {vector.shape}")
    return int(shape[0])
