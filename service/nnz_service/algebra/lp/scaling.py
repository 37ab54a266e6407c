"""Scaling before first-order iterations: Ruiz, Pock-Chambolle, bounds and costs.

As in PDLP (Applegate et al., arXiv 2106.04756, section 4.3) and cuPDLPx (Lu, Yang,
arXiv 2507.14051): ten Ruiz passes in the infinity norm, one of Pock and Chambolle with
alpha 1, after which the 2-norm of the matrix is at most one, then one factor for all
bounds and one for all costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.formats import Csr
from nnz_kernels.saddle import SaddleProblem
from nnz_service.algebra.lp.model import LinearProgram, Vector

RUIZ_PASSES = 10


@dataclass(frozen=True, slots=True)
class Scaled:
    """A program to minimize in other units.

    Args:
        problem: The scaled program with its transpose.
        rows: A row was divided by this (m,).
        columns: A column was divided by this (n,).
        bounds: All bounds were multiplied by this.
        costs: All costs were multiplied by this.
    """

    problem: SaddleProblem[HostArray]
    rows: Vector
    columns: Vector
    bounds: float
    costs: float

    def to_x(self, x: Vector) -> Vector:
        """Return primal values in the units of the user."""
        return x / (self.columns * self.bounds)

    def to_y(self, y: Vector) -> Vector:
        """Return dual values in the units of the user."""
        return y / (self.rows * self.costs)

    def to_r(self, r: Vector) -> Vector:
        """Return reduced costs in the units of the user."""
        return r * self.columns / self.costs

    def to_activity(self, ax: Vector) -> Vector:
        """Return ``A x`` in the units of the user."""
        return ax * self.rows / self.bounds

    def from_x(self, x: Vector) -> Vector:
        """Return primal values in the scaled units."""
        return x * (self.columns * self.bounds)

    def from_y(self, y: Vector) -> Vector:
        """Return dual values in the scaled units."""
        return y * (self.rows * self.costs)


def scale(program: LinearProgram) -> Scaled:
    """Return the program scaled, with its objective to minimize."""
    a = program.a
    i = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    j = np.asarray(a.indices)
    rows, columns = np.ones(a.shape[0]), np.ones(a.shape[1])
    size = np.abs(np.asarray(a.data, np.float64))
    for _ in range(RUIZ_PASSES):
        now = size / (rows[i] * columns[j])
        down, across = (
            _root(_most(now, i, rows.size)),
            _root(_most(now, j, columns.size)),
        )
        rows *= down
        columns *= across
    now = size / (rows[i] * columns[j])
    down, across = _root(_sum(now, i, rows.size)), _root(_sum(now, j, columns.size))
    rows *= down
    columns *= across
    scaled = replace(a, data=a.data / (rows[i] * columns[j]))
    lc, uc = program.lc / rows, program.uc / rows
    lv, uv = program.lv * columns, program.uv * columns
    c = program.sign * program.c / columns
    bounds, costs = 1 / (norm_of_bounds(lc, uc) + 1), 1 / (norm(c) + 1)
    problem = SaddleProblem(
        scaled, transposed(scaled), c * costs,
        lc * bounds, uc * bounds, lv * bounds, uv * bounds,
    )  # fmt: skip
    return Scaled(problem, rows, columns, bounds, costs)


def transposed(a: Csr[HostArray]) -> Csr[HostArray]:
    """Return the transpose in rows; the entries of a row ascend."""
    order = np.argsort(a.indices, kind="stable")
    rows = np.repeat(np.arange(a.shape[0], dtype=a.indices.dtype), np.diff(a.indptr))
    counts = np.bincount(a.indices, minlength=a.shape[1])
    indptr = np.zeros(a.shape[1] + 1, a.indptr.dtype)
    np.cumsum(counts, out=indptr[1:])
    return Csr(indptr, rows[order], a.data[order], (a.shape[1], a.shape[0]))


def norm_of_bounds(low: Vector, high: Vector) -> float:
    """Return the 2-norm of all finite bounds, those of equations once."""
    down = np.where(np.isfinite(low) & (low != high), low, 0.0)
    up = np.where(np.isfinite(high), high, 0.0)
    return norm(np.concatenate((down, up)))


def dot(x: Vector, y: Vector) -> float:
    """Return an inner product in one fixed order; BLAS would use other threads."""
    return float(np.einsum("i,i->", x, y))


def norm(x: Vector) -> float:
    """Return the 2-norm, without overflow where the greatest entry is finite."""
    most = float(np.abs(x).max(initial=0.0))
    if most == 0 or not np.isfinite(most):
        return most
    return most * float(np.sqrt(dot(x / most, x / most)))


def _most(values: Vector, where: HostArray, size: int) -> Vector:
    out = np.zeros(size)
    np.maximum.at(out, where, values)
    return out


def _sum(values: Vector, where: HostArray, size: int) -> Vector:
    out = np.zeros(size)
    out += np.bincount(where, values, size)
    return out


def _root(values: Vector) -> Vector:
    """Return square roots; what is empty stays as it is."""
    return np.sqrt(np.where(values > 0, values, 1.0))
