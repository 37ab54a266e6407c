"""Vectors on a device, which compute as NumPy's arrays do.

A method is written once. What it multiplies with a number is not computed until it is
added to something, so that a line of a method is one launch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnz_kernels.api.dense import SolverOps
from nnz_kernels.api.device import DeviceMemory
from nnz_kernels.copies import with_room

HostVector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Multiple:
    """A number times a vector, not yet computed."""

    factor: float
    vector: DeviceVector

    #: A number of NumPy leaves products to `DeviceVector`.
    __array_ufunc__ = None

    def __add__(self, other: DeviceVector | Multiple) -> DeviceVector:
        factor, vector = _parts(other)
        return self.vector.plus(self.factor, factor, vector)


class DeviceVector:
    """A float64 vector (n,); methods are those of an array that methods use.

    Args:
        there: Of the device.
        array: Where it lies.
    """

    __slots__ = ("array", "there")
    #: A number of NumPy must not take this for an array of objects.
    __array_ufunc__ = None

    def __init__(self, there: There, array: Any) -> None:
        self.there, self.array = there, array

    @property
    def size(self) -> int:
        """Elements."""
        return int(self.array.size)

    def copy(self) -> DeviceVector:
        """Return a fresh copy."""
        return self._blended(1.0, 0.0, None)

    def zeros_like(self) -> DeviceVector:
        """Return zeros of the same size."""
        return self.there.zeros(self.size)

    def host(self) -> HostVector:
        """Return a copy in the memory of the host."""
        return self.there.host(self.array)

    def dot(self, other: DeviceVector) -> float:
        """Return the inner product."""
        return self.there.ops.dense_dot(self.array, other.array)

    def plus(self, own: float, factor: float, other: DeviceVector) -> DeviceVector:
        """Return ``own self + factor other``."""
        return self._blended(own, factor, other)

    def __add__(self, other: DeviceVector | Multiple) -> DeviceVector:
        return self.plus(1.0, *_parts(other))

    def __sub__(self, other: DeviceVector | Multiple) -> DeviceVector:
        factor, vector = _parts(other)
        return self.plus(1.0, -factor, vector)

    def __mul__(self, other: DeviceVector | float) -> DeviceVector:
        if not isinstance(other, DeviceVector):
            return self._blended(float(other), 0.0, None)
        out = self._fresh()
        self.there.ops.dense_multiply(self.array, other.array, out.array)
        return out

    def __rmul__(self, factor: float) -> Multiple:
        return Multiple(float(factor), self)

    def __truediv__(self, divisor: float) -> DeviceVector:
        out = self._fresh()
        self.there.ops.dense_divide(self.array, float(divisor), out.array)
        return out

    def __iadd__(self, other: DeviceVector | Multiple) -> DeviceVector:
        factor, vector = _parts(other)
        self.there.ops.dense_axpby(1.0, self.array, factor, vector.array, self.array)
        return self

    def __isub__(self, other: DeviceVector | Multiple) -> DeviceVector:
        factor, vector = _parts(other)
        self.there.ops.dense_axpby(1.0, self.array, -factor, vector.array, self.array)
        return self

    def __imul__(self, factor: DeviceVector | float) -> DeviceVector:
        if isinstance(factor, DeviceVector):
            self.there.ops.dense_multiply(self.array, factor.array, self.array)
            return self
        self.there.ops.dense_axpby(float(factor), self.array, 0.0, None, self.array)
        return self

    def __itruediv__(self, divisor: float) -> DeviceVector:
        self.there.ops.dense_divide(self.array, float(divisor), self.array)
        return self

    def _fresh(self) -> DeviceVector:
        return self.there.empty(self.size)

    def _blended(
        self, own: float, factor: float, other: DeviceVector | None
    ) -> DeviceVector:
        out = self._fresh()
        added = None if other is None else other.array
        self.there.ops.dense_axpby(own, self.array, factor, added, out.array)
        return out


class DeviceRows:
    """Vectors below each other, as a matrix (m, n) of which rows are taken and set."""

    def __init__(self, there: There, array: Any) -> None:
        self.there, self.array = there, array

    def __getitem__(self, number: int) -> DeviceVector:
        row = self.array.part(number, number + 1).reshape(self.array.shape[1])
        return DeviceVector(self.there, row)

    def __setitem__(self, number: int, row: DeviceVector) -> None:
        out = self[number].array
        self.there.ops.dense_axpby(1.0, row.array, 0.0, None, out)

    def host(self) -> HostVector:
        """Return a copy in the memory of the host."""
        return self.there.host(self.array)

    def project(self, count: int, w: DeviceVector) -> HostVector:
        """Take out of w what lies along the first rows; return how much."""
        along, project = self.there.empty(count), self.there.ops.dense_project
        with_room(lambda: project(self.array, count, w.array, along.array))
        return along.host()


class There:
    """Where the vectors of a method lie: on a device.

    Errors of all that it does, and of its vectors: DeviceMemoryError, when nothing that
    is only kept can make room any more.
    """

    def __init__(self, ops: SolverOps[Any], device: DeviceMemory[Any]) -> None:
        self.ops, self.device = ops, device

    def take(self, x: HostVector) -> DeviceVector:
        """Return a copy of an array of the host."""
        return DeviceVector(self, with_room(lambda: self.device.to_device(x)))

    def take_rows(self, rows: HostVector) -> DeviceRows:
        """Return a copy of a matrix (m, n) as rows."""
        return DeviceRows(self, with_room(lambda: self.device.to_device(rows)))

    def rows(self, m: int, n: int) -> DeviceRows:
        """Return m rows of n zeros."""
        made = with_room(lambda: self.device.zeros((m, n), np.float64))
        return DeviceRows(self, made)

    def zeros(self, n: int) -> DeviceVector:
        """Return n zeros."""
        return DeviceVector(
            self, with_room(lambda: self.device.zeros((n,), np.float64))
        )

    def empty(self, n: int) -> DeviceVector:
        """Return n numbers of any value."""
        return DeviceVector(
            self, with_room(lambda: self.device.empty((n,), np.float64))
        )

    def host(self, array: Any) -> HostVector:
        """Return a copy of an array in the memory of the host."""
        found: HostVector = self.device.to_host(array)
        return found


def _parts(term: DeviceVector | Multiple) -> tuple[float, DeviceVector]:
    if isinstance(term, Multiple):
        return term.factor, term.vector
    return 1.0, term
