"""Triangular solves and incomplete factors on the device: a warp a row, no analysis.

Rows wait for each other on the device (triangle.cu), so one launch does it all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnz_kernels.api import factors, sparse
from nnz_kernels.api.conv import check_steady
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import blocks_of
from nnz_kernels.cuda.family import INDICES, Family, as_int, types_of
from nnz_kernels.cuda.sorting import launch_flat
from nnz_kernels.cuda.structs import Chain, Triangle
from nnz_kernels.errors import DeviceError, StructureError
from nnz_kernels.formats import Csr

#: Rows of a block, as in triangle.cu.
_WARPS = 8

#: Greater than the number of any row.
_NONE = 2**64 - 1


class Waiting(NamedTuple):
    """What `Chain` points to."""

    chain: Chain
    flags: DeviceArray
    bad: DeviceArray


class Triangles(Family):
    """Ops in which each row needs the rows before it."""

    def triangular_solve(
        self,
        a: Csr[DeviceArray],
        b: DeviceArray,
        /,
        *,
        lower: bool = True,
        unit_diagonal: bool = False,
        threads: int | None = None,
    ) -> DeviceArray:
        """Launch ``solve_rows`` on the named triangle."""
        sparse.check_triangle(a, b)
        x, bad = self._solve(a, None, b, lower=lower, unit=unit_diagonal)
        if bad is not None:
            row = bad if lower else a.shape[0] - 1 - bad
            raise StructureError(f"the diagonal entry of row {row} is zero or missing")
        return x

    def solve_triangle(
        self,
        strict: Csr[DeviceArray],
        diagonal: DeviceArray,
        b: DeviceArray,
        /,
        *,
        upper: bool,
    ) -> DeviceArray:
        """Launch ``solve_rows`` with a diagonal beside the matrix."""
        factors.check_triangle(strict, diagonal, b)
        check_steady("the diagonal", diagonal)
        return self._solve(strict, diagonal, b, lower=not upper, unit=False)[0]

    def ilu0(self, a: Csr[DeviceArray], /) -> tuple[DeviceArray, int]:
        """Launch ``factor_ilu0`` on a copy of the entries."""
        n = factors.check_square(a)
        indices = INDICES[a.indices.dtype]
        places = self.device.empty((n,), np.int64)
        find = registry.find("diagonal_places", indices)
        launch_flat(self.device, find, n, n, a.indptr, a.indices, places)
        return self._factored(registry.find("factor_ilu0", indices), a, places)

    def ic0(self, lower: Csr[DeviceArray], /) -> tuple[DeviceArray, int]:
        """Launch ``factor_ic0`` on a copy of the entries."""
        factors.check_square(lower)
        kernel = registry.find("factor_ic0", INDICES[lower.indices.dtype])
        return self._factored(kernel, lower)

    def _factored(
        self, kernel: registry.Kernel, a: Csr[DeviceArray], *more: DeviceArray
    ) -> tuple[DeviceArray, int]:
        n = a.shape[0]
        data = self.device.empty(a.data.shape, a.data.dtype)
        self.device.copy(a.data, data)
        wait = self._waiting(n)
        given = a.indptr, a.indices, *more, self.device.empty((n,), np.float64)
        self._launch(kernel, n, n, wait.chain, *given, data)
        bad = self._bad_row(wait)
        return data, -1 if bad is None else bad

    def _solve(
        self,
        a: Csr[DeviceArray],
        diagonal: DeviceArray | None,
        b: DeviceArray,
        *,
        lower: bool,
        unit: bool,
    ) -> tuple[DeviceArray, int | None]:
        check_steady("b", b)
        n = a.shape[0]
        x = self.device.empty(b.shape, b.dtype)
        width = 1 if b.ndim == 1 else b.shape[1]
        triangle = Triangle(n, width, int(lower), int(unit))
        wait = self._waiting(n)
        self._launch(
            registry.find("solve_rows", *types_of(a.data, a.indices)), n,
            triangle, wait.chain, a.indptr, a.indices, a.data, diagonal, b, x,
        )  # fmt: skip
        return x, self._bad_row(wait)

    def _launch(self, kernel: registry.Kernel, n: int, *values: object) -> None:
        grid = (blocks_of(n, _WARPS), 1, 1)
        self.device.launch(kernel, grid, (32, _WARPS, 1), *values)

    def _waiting(self, n: int) -> Waiting:
        """Return flags for so many rows, none of them done."""
        flags = self.device.zeros((n + 2,), np.int32)
        bad = self.device.to_device(np.array([_NONE], np.uint64))
        ticket, stopped = (flags.part(n + i, n + i + 1).address for i in range(2))
        return Waiting(Chain(flags.address, ticket, bad.address, stopped), flags, bad)

    def _bad_row(self, wait: Waiting) -> int | None:
        """Return the first row, in the order of work, that has no pivot.

        Raises:
            DeviceError: Rows waited for seconds.
        """
        if as_int(
            self.device.to_host(wait.flags.part(-1 + wait.flags.size, wait.flags.size))
        ):
            raise DeviceError("rows of a triangle waited for others that did not end")
        bad = as_int(self.device.to_host(wait.bad))
        return None if bad == _NONE else bad
