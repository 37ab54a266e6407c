"""A resident matrix as a servable: rows `x` [k, n] in, rows `y` [k, m] out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_kernels.backends import Backend
from nnz_service.algebra.operator import MatrixOperator, check_result
from nnz_service.errors import InvalidInputError
from nnz_service.servable import Tensors, TensorSpec, datatype

MAX_BATCH = 64  # columns of one product
_CACHE = 1 << 19  # bytes of x that stay near a core while all rows pass by
_PASS = 128  # bytes of a row of x, even so: a pass reads every entry of the matrix
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
        host = operator.backend is Backend.CPU
        # Elsewhere the width of a product may choose another kernel, and a lone
        # transposed one adds its parts up in an order of its own.
        self.bitwise = host and not transposed
        self._tile = _tile_of(columns, dtype) if host else MAX_BATCH
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
        check_result(x.shape[0] * (self.outputs[0].shape[1] or 0), spec.dtype)

    def work(self, rows: int) -> int:
        """See `Servable`."""
        return rows * self.operator.matrix.nnz * _ENTRY_NS

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """See `Servable`."""
        x, flipped = tensors["x"], self._transposed
        if x.shape[0] == 1:
            return {"y": self.operator.spmv(x[0], transpose=flipped)[np.newaxis]}
        y = np.empty((x.shape[0], self.outputs[0].shape[1] or 0), x.dtype)
        for start in range(0, x.shape[0], self._tile):
            rows = slice(start, start + self._tile)
            self._multiply(x[rows], y[rows])
        return {"y": y}

    def _multiply(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Fill the rows of y; with 3 or 7 columns kernels take longer than with 8."""
        count = x.shape[0]
        width = max(4, 1 << (count - 1).bit_length())
        columns = np.empty((x.shape[1], min(width, self._tile)), x.dtype)
        columns[:, :count] = x.T
        columns[:, count:] = 0
        y[...] = self.operator.spmm(columns, transpose=self._transposed)[:, :count].T

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


def _tile_of(length: int, dtype: np.dtype[Any]) -> int:
    """Return how many columns of x to multiply with at once: those that fit a cache."""
    fitting = _CACHE // max(length * dtype.itemsize, 1)
    least = _PASS // dtype.itemsize
    return min(MAX_BATCH, max(least, 1 << max(fitting, 1).bit_length() - 1))
