"""Triangular solves and incomplete factors on the device, without an analysis.

Rows wait for each other on the device (chain.cuh), so one launch does it all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnz_kernels.api import factors, sparse
from nnz_kernels.api.conv import check_steady
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import blocks_of
from nnz_kernels.cuda.family import INDICES, VALUES, types_of
from nnz_kernels.cuda.shapes import Shapes
from nnz_kernels.cuda.sorting import launch_flat
from nnz_kernels.cuda.structs import Chain, Triangle
from nnz_kernels.errors import DeviceError, StructureError
from nnz_kernels.formats import Csr

#: Rows of a block of warps, and threads of a block, as in triangle.cu.
_WARPS, _THREADS = 8, 256

#: Entries of the longest row up to which a row is a thread's, not a warp's.
SHORT = 64

#: Greater than the number of any row.
_NONE = 2**64 - 1


class Waiting(NamedTuple):
    """What `Chain` points to.

    Attributes:
        told: Ticket, whether somebody waited too long, and the first bad row.
        flags: Of rows; None where results tell by themselves that they are there.
    """

    chain: Chain
    told: DeviceArray
    flags: DeviceArray | None


class Triangles(Shapes):
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
        """Launch ``solve_short_rows`` or ``solve_rows`` on the named triangle."""
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
        """Launch the same with a diagonal beside the matrix."""
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
        flags = self.device.zeros((n,), np.int32)
        wait = self._waiting(flags)
        given = a.indptr, a.indices, *more, self.device.empty((n,), np.float64)
        grid, block = (blocks_of(n, _WARPS), 1, 1), (32, _WARPS, 1)
        self.device.launch(kernel, grid, block, n, wait.chain, *given, data)
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
        if n == 0:
            return x, None
        if width == 0:  # the triangle is looked at all the same
            column = self.device.zeros((n, 1), b.dtype)
            return x, self._solve(a, diagonal, column, lower=lower, unit=unit)[1]
        clear = registry.find("clear_all", VALUES[b.dtype])
        launch_flat(self.device, clear, x.size, x.size, x)
        types, wait = types_of(a.data, a.indices), self._waiting(None)
        triangle = Triangle(n, width, int(lower), int(unit))
        given = a.indptr, a.indices, a.data, diagonal, b, x
        if self._shape(a).longest <= SHORT:
            self.device.launch(
                registry.find("solve_short_rows", *types),
                (blocks_of(n * width, _THREADS), 1, 1), (_THREADS, 1, 1),
                triangle, wait.chain, *given,
            )  # fmt: skip
        else:
            self.device.launch(
                registry.find("solve_rows", *types),
                (blocks_of(n, _WARPS), 1, 1), (32, _WARPS, 1),
                triangle, wait.chain, *given,
            )  # fmt: skip
        return x, self._bad_row(wait)

    def _waiting(self, flags: DeviceArray | None) -> Waiting:
        """Return a chain in which nothing is done yet."""
        told = self.device.to_device(np.array([0, 0, _NONE], np.uint64))
        ticket, stopped, bad = (told.part(i, i + 1).address for i in range(3))
        done = 0 if flags is None else flags.address
        return Waiting(Chain(done, ticket, bad, stopped), told, flags)

    def _bad_row(self, wait: Waiting) -> int | None:
        """Return the first row, in the order of work, that has no pivot.

        Raises:
            DeviceError: Rows waited for seconds.
        """
        _, stopped, bad = map(int, self.device.to_host(wait.told))
        if stopped:
            raise DeviceError("rows of a triangle waited for others that did not end")
        return None if bad == _NONE else bad
