"""Semirings of products, and what masked products take.

Kepner and Gilbert 2011, Graph Algorithms in the Language of Linear Algebra, 2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnz_kernels.api.sparse import Semiring, check_factors, check_matrix
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.formats import Csr

#: Their numbers in compiled code are their places here.
SEMIRINGS: tuple[Semiring, ...] = ("plus_times", "min_plus", "or_and", "max_times")

#: What a missing entry stands for: adding it changes nothing. That of ``max_times``
#: holds on numbers that are not negative.
ZEROS: dict[Semiring, float] = {
    "plus_times": 0.0,
    "min_plus": np.inf,
    "or_and": 0.0,
    "max_times": 0.0,
}

_ORDERED = ("min_plus", "max_times")


def check_semiring(semiring: Semiring, dtype: np.dtype[Any]) -> None:
    """Refuse a semiring that is none, or that orders what has no order.

    Raises:
        DTypeError: Its name is unknown, or it takes the least or largest of complex
            numbers.
    """
    if semiring not in SEMIRINGS:
        raise DTypeError(
            f"semiring is {semiring!r:.60}, but must be one of {', '.join(SEMIRINGS)}"
        )
    if dtype.kind == "c" and semiring in _ORDERED:
        raise DTypeError(f"{semiring} needs an order, which {dtype} has not")


def check_masked(
    a: Csr[Any], b: Csr[Any], semiring: Semiring, mask: Csr[Any] | None
) -> None:
    """Refuse factors that do not fit each other, the semiring or the mask."""
    check_factors(a, b)
    check_semiring(semiring, a.data.dtype)
    shape = (a.shape[0], b.shape[1])
    if mask is not None and mask.shape != shape:
        raise ShapeError(
            f"the mask has shape {mask.shape}, but the product has shape {shape}"
        )


def check_applied(a: Csr[Any], x: Any, semiring: Semiring) -> None:
    """Refuse a vector that does not fit a matrix or the semiring."""
    check_matrix(a)
    check_semiring(semiring, a.data.dtype)
    if x.shape != (a.shape[1],) or x.dtype != a.data.dtype:
        raise ShapeError(
            f"the vector is {x.dtype} of shape {x.shape}, but must be {a.data.dtype} "
            f"of shape ({a.shape[1]},)"
        )
