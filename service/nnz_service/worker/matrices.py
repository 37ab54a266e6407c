"""A resident matrix as a servable: rows `x` [k, n] in, rows `y` [k, m] out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnz_kernels.backends import Backend
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidInputError
from nnz_service.servable import Tensors, TensorSpec, datatype

MAX_BATCH = 64  # columns of one product; wider gains nothing, the cache is full
_ENTRY_NS = 1  # a guess until the first product has been timed


class MatrixServable:
    """Products with one matrix or its transpose.

    Args:
        operator: The matrix and where it computes.
        transposed: Multiply with the transpose.
    """

    kind = "matrix"
    max_batch = MAX_BATCH
    plans = False

    def __init__(self, operator: MatrixOperator, *, transposed: bool = False) -> None:
        self.operator = operator
        self._transposed = transposed
        rows, columns = reversed(operator.shape) if transposed else operator.shape
        dtype = operator.matrix.data.dtype
        self.inputs = (TensorSpec("x", dtype, (None, columns)),)
        self.outputs = (TensorSpec("y", dtype, (None, rows)),)
        self.nbytes = operator.nbytes
        # Elsewhere the width of a product may choose another kernel.
        self.bitwise = operator.backend is Backend.CPU
        self.transpose = (
            None if transposed else MatrixServable(operator, transposed=True)
        )

    def check(self, tensors: Tensors) -> None:
        """See `Servable`."""
        spec = self.inputs[0]
        if set(tensors) != {"x"}:
            raise InvalidInputError(f"a matrix takes one input x, not {[*tensors]}")
        x = tensors["x"]
        if x.dtype != spec.dtype:
            raise InvalidInputError(
                f"x is {datatype(x.dtype)}, but the matrix holds {datatype(spec.dtype)}"
            )
        if x.ndim != 2 or x.shape[1] != spec.shape[1]:
            raise InvalidInputError(
                f"x has shape {[*x.shape]}, but must be [k, {spec.shape[1]}]: "
                "each row one vector"
            )

    def work(self, rows: int) -> int:
        """See `Servable`."""
        return rows * self.operator.matrix.nnz * _ENTRY_NS

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """See `Servable`; on the CPU a row has the same bits in any company."""
        x, flipped = tensors["x"], self._transposed
        if x.shape[0] == 1:
            return {"y": self.operator.spmv(x[0], transpose=flipped)[np.newaxis]}
        columns = np.ascontiguousarray(x.T)
        return {"y": self.operator.spmm(columns, transpose=flipped).T}

    def explain(self) -> list[dict[str, Any]]:
        """See `Servable`."""
        rows, columns = self.operator.shape
        return [
            {
                "name": "y = A x",
                "op": "SpMM",
                "shape": [rows, columns],
                "density": self.operator.matrix.nnz / max(rows * columns, 1),
                "block": 1,
                "bytes": self.nbytes,
                "kernel": "csr",
                "reason": "compressed rows, as stored",
            }
        ]
