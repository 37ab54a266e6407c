"""Products of a sparse matrix with dense vectors and blocks of vectors."""

from __future__ import annotations

from typing import Protocol, TypeVar

from nnz_kernels.formats import Csr

A = TypeVar("A")


class ProductOps(Protocol[A]):
    """Products; data float32 or float64 (the dense operand of the same type).

    The entries of a row are added in their stored order, whatever the number of
    threads, so column j of `spmm` equals `spmv` of column j bit for bit. The transposed
    products add in an order that depends on the matrix alone.

    Raises, all of them: ShapeError for sizes that do not fit; DTypeError for types that
    differ. The matrix is trusted: call its ``check`` first.
    """

    def spmv(self, a: Csr[A], x: A, /, *, threads: int | None = None) -> A:
        """Return ``a @ x``: x (n,), result (m,), fresh."""
        ...

    def spmv_t(self, a: Csr[A], y: A, /, *, threads: int | None = None) -> A:
        """Return ``a.T @ y``: y (m,), result (n,), fresh."""
        ...

    def spmm(self, a: Csr[A], x: A, /, *, threads: int | None = None) -> A:
        """Return ``a @ x``: x (n, k) C order, result (m, k) C order, fresh."""
        ...

    def spmm_t(self, a: Csr[A], y: A, /, *, threads: int | None = None) -> A:
        """Return ``a.T @ y``: y (m, k) C order, result (n, k) C order, fresh."""
        ...
