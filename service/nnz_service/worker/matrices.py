"""A resident matrix as a servable: rows `x` [k, n] in, rows `y` [k, m] out.

Of a complex matrix they are [k, n, 2] and [k, m, 2]: real and imaginary parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_kernels.backends import Backend
from nnz_service.algebra.lp.model import LinearProgram
from nnz_service.algebra.operator import MatrixOperator, check_result
from nnz_service.algebra.pairs import from_pairs, to_pairs
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
        program: The linear program that was stored with the matrix.
    """

    kind = "matrix"
    max_batch = MAX_BATCH
    plans = False
    steady = True

    def __init__(
        self,
        operator: MatrixOperator,
        *,
        transposed: bool = False,
        program: LinearProgram | None = None,
    ) -> None:
        self.operator = operator
        self.program = program
        self._transposed = transposed
        rows, columns = reversed(operator.shape) if transposed else operator.shape
        dtype = operator.matrix.data.dtype
        #: Whether vectors are of pairs.
        self.complex = dtype.kind == "c"
        parts: tuple[int, ...] = (2,) if self.complex else ()
        real = np.dtype(np.float64) if self.complex else dtype
        self.inputs = (TensorSpec("x", real, (None, columns, *parts)),)
        self.outputs = (TensorSpec("y", real, (None, rows, *parts)),)
        self.nbytes = operator.nbytes if program is None else program.nbytes
        host = operator.backend is Backend.CPU
        # Elsewhere the width of a product may choose another kernel, and a lone
        # transposed one adds its parts up in an order of its own.
        self.bitwise = host and not transposed
        self._tile = _tile_of(columns, dtype) if host else MAX_BATCH
        #: Drawn of it, by size.
        self.pictures: dict[int, bytes] = {}
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
                f"x is {datatype(x.dtype)}, but must be {datatype(spec.dtype)}, as the "
                "matrix is"
            )
        if x.shape[1:] != spec.shape[1:]:
            sizes = ", ".join(str(size) for size in spec.shape[1:])
            what = ", real and imaginary parts last" if self.complex else ""
            raise InvalidInputError(
                f"x has shape {[*x.shape]}, but must be [k, {sizes}]: each row one "
                f"vector{what}"
            )
        check_result(math.prod(x.shape[:1] + self._size), spec.dtype)

    def work(self, rows: int) -> int:
        """See `Servable`."""
        return rows * self.operator.matrix.nnz * _ENTRY_NS

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """See `Servable`."""
        x = tensors["x"]
        if self.complex:
            return {"y": to_pairs(self._product(from_pairs(x)))}
        return {"y": self._product(x)}

    @property
    def _size(self) -> tuple[int, ...]:
        """Extents of an answer for one vector."""
        return tuple(size or 0 for size in self.outputs[0].shape[1:])

    def _product(self, x: NDArray[Any]) -> NDArray[Any]:
        """Multiply with each row of x, of the type of the matrix."""
        if x.shape[0] == 1:
            y = self.operator.spmv(x[0], transpose=self._transposed)
            return y[np.newaxis]
        if not x.size or not self._size[0]:  # however many there are: at once
            return np.zeros((x.shape[0], self._size[0]), x.dtype)
        y = np.empty((x.shape[0], self._size[0]), x.dtype)
        for start in range(0, x.shape[0], self._tile):
            rows = slice(start, start + self._tile)
            self._multiply(x[rows], y[rows])
        return y

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
                "reason": "; ".join(
                    filter(None, ("compressed rows, as stored", self.operator.note))
                ),
            }
        ]


def _tile_of(length: int, dtype: np.dtype[Any]) -> int:
    """Return how many columns of x to multiply with at once: those that fit a cache."""
    fitting = _CACHE // max(length * dtype.itemsize, 1)
    least = _PASS // dtype.itemsize
    return min(MAX_BATCH, max(least, 1 << max(fitting, 1).bit_length() - 1))
