"""Products of a sparse matrix with dense vectors and blocks of vectors."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

from nnz_kernels.arrays import ENTRIES, INDICES
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.formats import Csr

A = TypeVar("A")


class ProductOps(Protocol[A]):
    """Products; data float32, float64 or complex128, which a device may lack.

    The dense operand is of the same type.

    The entries of a row are added in their stored order, whatever the number of
    threads, so column j of `spmm` equals `spmv` of column j bit for bit. The transposed
    products add in an order that depends on the matrix alone.

    Raises, all of them: ShapeError for sizes that do not fit; DTypeError for types that
    differ. The matrix is trusted: call its ``check`` first.
    """

    def spmv(self, a: Csr[A], x: A, /, *, threads: int | None = None) -> A:
        """Return ``a @ x``: x (n,), result (m,), fresh."""
        ...

    def spmv_t(
        self,
        a: Csr[A],
        y: A,
        /,
        *,
        conjugate: bool = False,
        threads: int | None = None,
    ) -> A:
        """Return ``a.T @ y``, or that of the conjugate: y (m,), result (n,), fresh."""
        ...

    def spmm(self, a: Csr[A], x: A, /, *, threads: int | None = None) -> A:
        """Return ``a @ x``: x (n, k) C order, result (m, k) C order, fresh."""
        ...

    def spmm_t(
        self,
        a: Csr[A],
        y: A,
        /,
        *,
        conjugate: bool = False,
        threads: int | None = None,
    ) -> A:
        """Return ``a.T @ y``, or that of the conjugate: y (m, k), result (n, k), fresh.

        Both in C order.
        """
        ...


def check_product(
    a: Csr[Any],
    x: Any,
    *,
    ndim: int,
    transposed: bool,
    types: tuple[np.dtype[Any], ...] = ENTRIES,
) -> int:
    """Refuse operands that do not fit; return the length of the result.

    Args:
        a: The matrix.
        x: The dense operand.
        ndim: Axes that *x* must have.
        transposed: Whether ``a.T`` is multiplied.
        types: Of values that there are kernels for.
    """
    rows, columns = reversed(a.shape) if transposed else a.shape
    if x.ndim != ndim or x.shape[0] != columns:
        wanted = f"({columns},)" if ndim == 1 else f"({columns}, k)"
        which = "transposed matrix" if transposed else "matrix"
        raise ShapeError(
            f"the dense operand has shape {x.shape}, but a {which} of shape "
            f"{(rows, columns)} needs {wanted}"
        )
    if a.data.dtype not in types or x.dtype != a.data.dtype:
        raise DTypeError(
            f"the matrix holds {a.data.dtype} and the dense operand {x.dtype}, but "
            f"both must be {' or both '.join(map(str, types))}"
        )
    if a.indices.dtype not in INDICES or a.indptr.dtype != a.indices.dtype:
        raise DTypeError(
            f"indptr is {a.indptr.dtype} and indices {a.indices.dtype}, but both must "
            "be int32 or both int64"
        )
    return int(rows)
