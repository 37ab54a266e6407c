"""What is found out about a matrix on the device once."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass

import numpy as np

from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray, Memory
from nnz_kernels.cuda.device import Device
from nnz_kernels.cuda.family import INDICES, Family
from nnz_kernels.cuda.sorting import check_count, launch_flat, sort_pairs
from nnz_kernels.cuda.transposing import transposed
from nnz_kernels.formats import Csr

#: Rows differ much from this ratio of the longest to the mean on.
UNEVEN = 8.0


@dataclass(slots=True)
class Shape:
    """What is found out about a matrix once.

    Attributes:
        longest: Entries of its longest row.
        order: Its rows, the longest first, where their lengths differ much.
        transposed: Its transpose, from the first transposed product on.
        matrix: Of which that is the transpose, without keeping it.
    """

    longest: int
    order: DeviceArray | None = None
    transposed: Csr[DeviceArray] | None = None
    matrix: tuple[object, ...] = ()


class Shapes(Family):
    """What is known of matrices; it lives as long as their row pointers do."""

    def __init__(self, device: Device, precision: str = "fp32") -> None:
        super().__init__(device, precision)
        # By the memory of indptr, then by where in it the pointers of a matrix lie.
        self._shapes: weakref.WeakKeyDictionary[Memory, dict[object, Shape]] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()

    def _shape(self, a: Csr[DeviceArray]) -> Shape:
        with self._lock:
            there = self._shapes.setdefault(a.indptr.memory, {})
            key = (a.indptr.offset, a.indptr.shape)
            if key not in there:
                there[key] = self._analyse(a)
            return there[key]

    def _analyse(self, a: Csr[DeviceArray]) -> Shape:
        rows = a.shape[0]
        longest = self.device.zeros((1,), np.uint64)
        keys = self.device.empty((rows,), np.uint64)
        numbers = self.device.empty((rows,), np.int32)
        kernel = registry.find("row_lengths", INDICES[a.indices.dtype])
        launch_flat(self.device, kernel, rows, rows, a.indptr, keys, numbers, longest)
        found = Shape(int(self.device.to_host(longest)[0]))
        if found.longest > UNEVEN * a.nnz / max(rows, 1):
            check_count(rows, "a matrix with uneven rows")
            found.order = sort_pairs(self.device, keys, numbers, 32)[1]
        return found

    def _transposed(self, a: Csr[DeviceArray]) -> Csr[DeviceArray]:
        shape = self._shape(a)
        with self._lock:
            if shape.transposed is None or shape.matrix != _identity(a):
                shape.transposed, shape.matrix = (
                    transposed(self.device, a),
                    _identity(a),
                )
            return shape.transposed


def _identity(a: Csr[DeviceArray]) -> tuple[object, ...]:
    """Return what is equal for the same arrays alone, as long as they are there."""
    places = ((weakref.ref(x.memory), x.offset) for x in (a.indices, a.data))
    return (a.shape, *places)
