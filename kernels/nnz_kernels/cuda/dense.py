"""Dense vectors of iterative methods on the device."""

from __future__ import annotations

import numpy as np

from nnz_kernels.api.conv import check_steady
from nnz_kernels.api.dense import check_basis, check_vectors
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import Device, blocks_of
from nnz_kernels.cuda.family import Family, as_float
from nnz_kernels.cuda.sorting import launch_flat

#: Numbers of a block of an inner product at least, and its blocks at most.
_EACH, _PARTS = 2048, 1024

_BLOCK = (256, 1, 1)


class Dense(Family):
    """Ops on whole vectors: a launch each."""

    def __init__(self, device: Device, precision: str = "fp32") -> None:
        super().__init__(device, precision)
        self._dots: tuple[DeviceArray, ...] | None = None

    def dense_axpby(
        self,
        a: float,
        x: DeviceArray,
        b: float,
        y: DeviceArray | None,
        out: DeviceArray,
        /,
    ) -> None:
        """Launch ``dense_axpby``."""
        n = _checked(x, out) if y is None else _checked(x, y, out)
        kernel = registry.find("dense_axpby")
        launch_flat(self.device, kernel, n, n, a, x, b, y, out)

    def dense_multiply(
        self, x: DeviceArray, y: DeviceArray, out: DeviceArray, /
    ) -> None:
        """Launch ``dense_multiply``."""
        n = _checked(x, y, out)
        launch_flat(self.device, registry.find("dense_multiply"), n, n, x, y, out)

    def dense_divide(self, x: DeviceArray, divisor: float, out: DeviceArray, /) -> None:
        """Launch ``dense_divide``."""
        n = _checked(x, out)
        launch_flat(self.device, registry.find("dense_divide"), n, n, x, divisor, out)

    def dense_dot(self, x: DeviceArray, y: DeviceArray, /) -> float:
        """Launch ``dense_dots`` and wait for the number."""
        n = _checked(x, y)
        if n == 0:
            return 0.0
        blocks = min(blocks_of(n, _EACH), _PARTS)
        # Parts, their count and the sum are the same for all calls, which take turns.
        with self.device.turn:
            if self._dots is None:
                whole = self.device.zeros((_PARTS + 2,), np.float64)
                cuts = (0, _PARTS), (_PARTS, _PARTS + 1), (_PARTS + 1, _PARTS + 2)
                self._dots = tuple(whole.part(*cut) for cut in cuts)
            self.device.launch(
                registry.find("dense_dots"),
                (blocks, 1, 1),
                _BLOCK,
                n,
                x,
                y,
                *self._dots,
            )
            return as_float(self.device.to_host(self._dots[-1]))

    def dense_project(
        self, basis: DeviceArray, count: int, w: DeviceArray, along: DeviceArray, /
    ) -> None:
        """Launch ``dense_dots`` and ``dense_subtract`` twice."""
        n = check_basis(basis, count, w, along)
        for array in (basis, w, along):
            check_steady("an array", array)
        blocks = max(min(blocks_of(n, _EACH), _PARTS), 1)
        parts = self.device.empty((count * blocks,), np.float64)
        counts = self.device.zeros((count,), np.int32)
        rounds = [self.device.empty((count,), np.float64) for _ in range(2)]
        subtract = registry.find("dense_subtract")
        for found in rounds:
            self.device.launch(
                registry.find("dense_dots"), (blocks, count, 1), _BLOCK,
                n, basis, w, parts, counts, found,
            )  # fmt: skip
            launch_flat(self.device, subtract, n, n, count, basis, found, w)
        self.dense_axpby(1.0, rounds[0], 1.0, rounds[1], along)


def _checked(*vectors: DeviceArray) -> int:
    for vector in vectors:
        check_steady("a vector", vector)
    return check_vectors(*vectors)
