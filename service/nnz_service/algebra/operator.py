"""A resident matrix and what may be multiplied with it."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from nnz_kernels.api import Kernels
from nnz_kernels.api.device import DeviceMemory
from nnz_kernels.arrays import FLOATS, HostArray
from nnz_kernels.backends import Backend, load
from nnz_kernels.copies import or_host
from nnz_kernels.formats import Csr
from nnz_service import usage
from nnz_service.algebra.files import read_resident
from nnz_service.errors import InvalidInputError

#: Bytes of one result: a small matrix of many columns, transposed, asks for any number.
MAX_RESULT = min(4 << 30, usage.memory_limit() // 4)


class MatrixOperator:
    """A checked matrix (m, n) that stays in memory and multiplies dense operands.

    Dense operands are converted to the type of the matrix, which complex ones must be
    of; results have that type. May be called from several threads.

    What a GPU has no room for, or no kernel that counts so far, the CPU does instead;
    `note` says so. A matrix that has no room there stays on the CPU with all that is
    made of it.

    Args:
        matrix: A matrix whose ``check`` has passed.
        backend: Where the products run.
        threads: How many threads a product may use; None means all.
    """

    def __init__(
        self,
        matrix: Csr[HostArray],
        backend: Backend | str = Backend.CPU,
        threads: int | None = None,
    ) -> None:
        self.matrix = matrix
        self.threads = threads
        self.backend = Backend(backend)
        # Devices have no products of complex numbers: the host's do instead.
        pairs = matrix.data.dtype.kind == "c" and self.backend is Backend.CUDA
        self._kernels: Kernels[Any] = load(Backend.CPU if pairs else self.backend)
        self._device = self._kernels.DEVICE
        #: Why the CPU does what a GPU was asked for; empty where it does not.
        self.note = ""
        # On a device it stays there; the host's arrays remain for who reads entries.
        self._resident: Csr[Any] = matrix
        if (device := self._device) is not None:
            self._resident = or_host(
                "the matrix",
                lambda: matrix.map(device.to_device),
                self._stay,
                self._tell,
            )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        backend: Backend | str = Backend.CPU,
        threads: int | None = None,
    ) -> MatrixOperator:
        """Read a file that `write_resident` wrote."""
        return cls(read_resident(path), backend, threads)

    def with_matrix(self, matrix: Csr[HostArray]) -> MatrixOperator:
        """Return another matrix on the same back-end with as many threads."""
        return MatrixOperator(matrix, self.backend, self.threads)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.matrix.shape

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.matrix.nbytes

    def description(self) -> dict[str, Any]:
        """Return what a client wants to know, as JSON types."""
        return {
            "shape": list(self.matrix.shape),
            "nnz": self.matrix.nnz,
            "dtype": str(self.matrix.data.dtype),
            "index_dtype": str(self.matrix.indices.dtype),
            "bytes": self.nbytes,
        }

    @property
    def there(self) -> tuple[Csr[Any], DeviceMemory[Any]] | None:
        """The matrix on a device, and the device; None where the host computes."""
        return None if self._device is None else (self._resident, self._device)

    def spmv(self, x: HostArray, *, transpose: bool = False) -> HostArray:
        """Return ``A @ x`` for x (n,), or ``A.T @ x`` for x (m,)."""
        x = self._operand(x, 1, transpose)
        return self._multiply("spmv_t" if transpose else "spmv", x)

    def spmm(self, x: HostArray, *, transpose: bool = False) -> HostArray:
        """Return ``A @ x`` for x (n, k) C order, or ``A.T @ x`` for x (m, k).

        On the CPU each column of ``A @ x`` has the bits that `spmv` would give; a lone
        transposed product, and every one on a device, may add in another order.
        """
        x = self._operand(x, 2, transpose)
        return self._multiply("spmm_t" if transpose else "spmm", x)

    def _multiply(self, op: str, x: HostArray) -> HostArray:
        run = getattr(self._kernels, op)
        if self._device is None:
            found: HostArray = run(self._resident, x, threads=self.threads)
            return found
        device = self._device

        def there() -> HostArray:
            with device.turn:
                out: HostArray = device.to_host(
                    run(self._resident, device.to_device(x))
                )
            return out

        def here() -> HostArray:
            out: HostArray = getattr(load(Backend.CPU), op)(
                self.matrix, x, threads=self.threads
            )
            return out

        return or_host(op, there, here, self._tell)

    def _stay(self) -> Csr[HostArray]:
        """Keep the matrix on the host."""
        self.backend, self._device = Backend.CPU, None
        self._kernels = load(Backend.CPU)
        return self.matrix

    def _tell(self, why: str) -> None:
        self.note = why

    def _operand(self, x: HostArray, ndim: int, transpose: bool) -> HostArray:
        length = self.shape[0] if transpose else self.shape[1]
        if x.ndim != ndim or x.shape[0] != length:
            wanted = f"[{length}]" if ndim == 1 else f"[{length}, k]"
            which = "transposed matrix" if transpose else "matrix"
            raise InvalidInputError(
                f"x has shape {list(x.shape)}, but this {which} needs {wanted}"
            )
        rows, dtype = self.shape[1 if transpose else 0], self.matrix.data.dtype
        if x.dtype not in (*FLOATS, dtype) and x.dtype.kind not in "biu":
            also = f" or {dtype}" if dtype.kind == "c" else ""
            raise InvalidInputError(
                f"x has type {x.dtype}, but must be float32, float64, integer{also}"
            )
        check_result(rows * math.prod(x.shape[1:]), dtype)
        return np.ascontiguousarray(x, dtype)


def check_result(size: int, dtype: np.dtype[Any]) -> None:
    """Refuse to compute so many elements, which a few bytes may ask for.

    Raises:
        InvalidInputError: They take more than `MAX_RESULT` bytes.
    """
    nbytes = size * dtype.itemsize
    if nbytes > MAX_RESULT:
        raise InvalidInputError(
            f"the result would take {nbytes} bytes; the limit is {MAX_RESULT}"
        )
