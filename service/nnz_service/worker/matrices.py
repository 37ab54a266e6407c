"""A resident matrix as a servable: rows `x` [k, n] in, rows `y` [k, m] out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnz_kernels.api import Kernels
from nnz_kernels.errors import StructureError
from nnz_kernels.formats import Csr
from nnz_service.errors import InvalidInputError, InvalidMatrixError
from nnz_service.repository import bundles
from nnz_service.servable import Tensors, TensorSpec, datatype

MAX_BATCH = 64  # columns of one product; wider gains nothing, the cache is full
_ENTRY_NS = 1  # a guess until the first product has been timed


def load_matrix(path: Path) -> Csr[NDArray[Any]]:
    """Read the resident form of a matrix and check every index of it.

    Raises:
        InvalidMatrixError: when the file does not hold a matrix.
    """
    arrays = bundles.load(path)
    try:
        shape = (int(arrays["shape"][0]), int(arrays["shape"][1]))
        matrix = Csr(arrays["indptr"], arrays["indices"], arrays["data"], shape)
        matrix.check()
    except (KeyError, IndexError, StructureError) as error:
        raise InvalidMatrixError(f"not a resident matrix: {error}") from error
    return matrix


class MatrixServable:
    """Products with one matrix or its transpose, on the kernels given.

    Args:
        matrix: Checked.
        kernels: Where to compute.
        threads: None for all cores.
        transposed: Multiply with the transpose.
    """

    kind = "matrix"
    max_batch = MAX_BATCH

    def __init__(
        self,
        matrix: Csr[NDArray[Any]],
        kernels: Kernels[NDArray[Any]],
        threads: int | None,
        *,
        transposed: bool = False,
    ) -> None:
        self.matrix = matrix
        self._kernels = kernels
        self._threads = threads
        self._transposed = transposed
        rows, columns = reversed(matrix.shape) if transposed else matrix.shape
        self.inputs = (TensorSpec("x", matrix.data.dtype, (None, columns)),)
        self.outputs = (TensorSpec("y", matrix.data.dtype, (None, rows)),)
        self.nbytes = 0 if transposed else matrix.nbytes
        self._transpose: MatrixServable | None = None

    @property
    def transpose(self) -> MatrixServable:
        """The servable of the transpose; it shares the arrays."""
        if self._transpose is None:
            self._transpose = MatrixServable(
                self.matrix, self._kernels, self._threads, transposed=True
            )
        return self._transpose

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
        return rows * self.matrix.nnz * _ENTRY_NS

    def run(self, tensors: Tensors, outputs: Sequence[str] | None) -> Tensors:
        """See `Servable`."""
        x, matrix, kernels = tensors["x"], self.matrix, self._kernels
        if x.shape[0] == 1:
            spmv = kernels.spmv_t if self._transposed else kernels.spmv
            vector = np.ascontiguousarray(x[0])
            return {"y": spmv(matrix, vector, threads=self._threads)[np.newaxis]}
        spmm = kernels.spmm_t if self._transposed else kernels.spmm
        columns = np.ascontiguousarray(x.T)
        return {"y": spmm(matrix, columns, threads=self._threads).T}

    def explain(self) -> list[dict[str, Any]]:
        """See `Servable`."""
        rows, columns = self.matrix.shape
        density = self.matrix.nnz / max(rows * columns, 1)
        return [
            {
                "name": "y = A x",
                "op": "SpMM",
                "shape": [rows, columns],
                "density": density,
                "bytes": self.matrix.nbytes,
                "kernel": "csr",
                "reason": "compressed rows, as stored",
            }
        ]
