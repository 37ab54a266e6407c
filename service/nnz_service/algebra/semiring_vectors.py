"""Products of a matrix with dense operands over a semiring."""

from __future__ import annotations

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_service.algebra.operands import Operands
from nnz_service.algebra.selections import check_scratch
from nnz_service.errors import InvalidInputError


def applied(op: str, given: Operands) -> HostArray:
    """Return ``A @ x`` over a semiring, or ``A.T @ x`` with ``transpose``.

    A row without entries gives the semiring's zero: inf of ``min_plus``, else 0. Every
    column of x takes a pass over the matrix, and a transposed product makes the
    transpose first.

    Args:
        op: ``spmv`` (x [n] -> [m]) or ``spmm`` (x [n, k] -> [m, k]).
        given: A real matrix in canonical form, x, and the parameters ``semiring`` and
            ``transpose``.

    Raises:
        InvalidInputError: An operand or a parameter does not fit.
        TooLargeError: The transpose counts too many columns.
    """
    if set(given.tensors) != {"x"}:
        raise InvalidInputError(f"{op} takes one input x, not {[*given.tensors]}")
    turned = given.flag("transpose", False)
    x = given.dense("x", ndim=1 if op == "spmv" else 2)
    length = given.a.shape[0 if turned else 1]
    if x.shape[0] != length:
        wanted = f"[{length}]" if op == "spmv" else f"[{length}, k]"
        raise InvalidInputError(f"x has shape {[*x.shape]}, but must be {wanted}")
    a = given.a
    if turned:
        check_scratch(a.shape[1], "column")
        a = given.ops.transpose(a, threads=given.threads)
    multiply, semiring = given.semirings.semiring_spmv, given.semiring
    if op == "spmv":
        return multiply(a, x, semiring, threads=given.threads)
    y = np.empty((a.shape[0], x.shape[1]), a.data.dtype)
    for j in range(x.shape[1]):
        column = np.ascontiguousarray(x[:, j])
        y[:, j] = multiply(a, column, semiring, threads=given.threads)
    return y
