"""Vectors that every solver uses, in the memory of the host or on a device."""

from __future__ import annotations

import math
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from nnz_service.algebra.krylov.there import DeviceRows, DeviceVector

#: An array of the host, or a `DeviceVector`, which has the same arithmetic.
Vector = npt.NDArray[np.float64]

#: Distance from 1 to the next float64.
EPS = float(np.finfo(np.float64).eps)

#: Sums of squares below this may have lost what underflowed.
_LOSSY = float(np.finfo(np.float64).tiny) / EPS


def dot(x: Vector, y: Vector) -> float:
    """Return an inner product in one fixed order.

    Not BLAS: its threads would wait, spinning, beside those of the products.
    """
    if isinstance(x, DeviceVector):
        return x.dot(cast("DeviceVector", y))
    return float(np.einsum("i,i->", x, y))


def norm(x: Vector) -> float:
    """Return the 2-norm; infinite when the squares overflow."""
    square = dot(x, x)
    return safe_norm(x) if square < _LOSSY else math.sqrt(square)


def safe_norm(x: Vector) -> float:
    """Return the 2-norm, whatever the size of the entries."""
    x = on_host(x)
    largest = float(np.abs(x).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * norm(x / largest)


def project(basis: Vector, count: int, w: Vector) -> Vector:
    """Take out of w, in place, what lies along the first rows of a basis.

    By modified Gram-Schmidt on the host, which goes through the basis once; on a
    device, where each step would be waited for, by the classical one, twice.

    Returns:
        How much there was along each row, (count,).
    """
    if isinstance(basis, DeviceRows):
        return basis.project(count, cast("DeviceVector", w))
    along = np.zeros(count)
    for i in range(count):
        along[i] = dot(basis[i], w)
        w -= along[i] * basis[i]
    return along


def zeros_like(x: Vector) -> Vector:
    """Return zeros where x lies."""
    if isinstance(x, DeviceVector):
        return cast("Vector", x.zeros_like())
    return np.zeros_like(x)


def on_host(x: Vector) -> Vector:
    """Return an array of the host: x itself, if it is one."""
    return x.host() if isinstance(x, DeviceVector | DeviceRows) else x


class Space(Protocol):
    """Where the vectors of a method lie."""

    def take(self, x: Vector) -> Vector:
        """Return an array of the host as a vector, which may be the array itself."""
        ...

    def take_rows(self, rows: Vector) -> Vector:
        """Return a matrix (m, n) of the host as rows that can be taken and set."""
        ...

    def rows(self, m: int, n: int) -> Vector:
        """Return m rows of n zeros."""
        ...


class Here:
    """The memory of the host."""

    def take(self, x: Vector) -> Vector:
        """See `Space`."""
        return x

    def take_rows(self, rows: Vector) -> Vector:
        """See `Space`."""
        return rows

    def rows(self, m: int, n: int) -> Vector:
        """See `Space`."""
        return np.zeros((m, n))


HERE: Space = Here()


def over(x: float, y: float) -> float:
    """Return x / y, and x where y is 0."""
    return x / y if y else x


def quiet() -> np.errstate:
    """Let numbers overflow without a warning: a status tells of it."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
