"""Inner products and norms that every solver uses."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

#: Distance from 1 to the next float64.
EPS = float(np.finfo(np.float64).eps)

#: Sums of squares below this may have lost what underflowed.
_LOSSY = float(np.finfo(np.float64).tiny) / EPS


def dot(x: Vector, y: Vector) -> float:
    """Return an inner product in one fixed order.

    Not BLAS: its threads would wait, spinning, beside those of the products.
    """
    return float(np.einsum("i,i->", x, y))


def norm(x: Vector) -> float:
    """Return the 2-norm; infinite when the squares overflow."""
    square = dot(x, x)
    return safe_norm(x) if square < _LOSSY else math.sqrt(square)


def safe_norm(x: Vector) -> float:
    """Return the 2-norm, whatever the size of the entries."""
    largest = float(np.abs(x).max(initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * norm(x / largest)


def over(x: float, y: float) -> float:
    """Return x / y, and x where y is 0."""
    return x / y if y else x


def quiet() -> np.errstate:
    """Let numbers overflow without a warning: a status tells of it."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
