"""Certificates that a program has no solution: rays, checked on the given program.

Theory: Applegate, Diaz, Lu, Lubin, "Infeasibility detection with primal-dual hybrid
gradient", arXiv 2102.04592: where there is no solution, the differences of iterates
tend to a ray. A ray counts only when its fault is tiny beside what it proves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from nnz_kernels.api import Kernels
from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import Backend, load
from nnz_kernels.formats import Csr
from nnz_service.algebra.lp.kkt import fit, support
from nnz_service.algebra.lp.model import LinearProgram, Vector
from nnz_service.algebra.lp.scaling import dot

#: Fault of a ray, over what it proves and over the size of its terms.
TOLERANCE = 1e-8


@dataclass(frozen=True, slots=True)
class Ray:
    """A direction that proves something, its largest entry 1.

    Args:
        status: What it proves.
        direction: (m,) for ``infeasible``, (n,) for ``unbounded``.
        fault: By how much it misses being exact, over what it proves: a solution would
            need entries that add up to the reciprocal.
    """

    status: Literal["infeasible", "unbounded"]
    direction: Vector
    fault: float


def dual_ray(lp: LinearProgram, y: Vector) -> Ray | None:
    """Return a proof that no x is feasible, if *y* is one.

    Args:
        lp: The program.
        y: Multipliers of the rows (m,); what no bound allows is left out.
    """
    up = np.where(np.isinf(lp.lc), np.minimum(y, 0.0), y)
    y = np.where(np.isinf(lp.uc), np.maximum(up, 0.0), up)
    size = _most(y)
    if not 0 < size < np.inf:
        return None
    aty = _cpu().spmv_t(lp.a, y)
    r = fit(-aty, lp.lv, lp.uv)
    proven = support(y, lp.lc, lp.uc) + support(r, lp.lv, lp.uv)
    fault = _most(aty + r)
    if not proven > 0 or fault > TOLERANCE * proven:
        return None
    if fault > TOLERANCE * _most(_cpu().spmv_t(_magnitudes(lp), np.abs(y))):
        return None
    return Ray("infeasible", y / size, fault / proven)


def primal_ray(lp: LinearProgram, x: Vector) -> Ray | None:
    """Return a proof that the objective has no bound, if *x* is one.

    Args:
        lp: The program.
        x: Direction (n,); what a bound stops is left out.
    """
    up = np.where(np.isfinite(lp.lv), np.maximum(x, 0.0), x)
    x = np.where(np.isfinite(lp.uv), np.minimum(up, 0.0), up)
    size = _most(x)
    if not 0 < size < np.inf:
        return None
    gained = -lp.sign * dot(lp.c, x)
    if not gained > TOLERANCE * size * _most(lp.c):
        return None
    ax = _cpu().spmv(lp.a, x)
    short = np.where(np.isfinite(lp.lc), np.maximum(-ax, 0.0), 0.0)
    over = np.where(np.isfinite(lp.uc), np.maximum(ax, 0.0), 0.0)
    fault = max(_most(short), _most(over))
    if fault > TOLERANCE * gained:
        return None
    if fault > TOLERANCE * _most(_cpu().spmv(_magnitudes(lp), np.abs(x))):
        return None
    return Ray("unbounded", x / size, fault / gained)


def _magnitudes(lp: LinearProgram) -> Csr[HostArray]:
    return replace(lp.a, data=np.abs(lp.a.data))


def _most(x: Vector) -> float:
    return float(np.abs(x).max(initial=0.0))


def _cpu() -> Kernels[HostArray]:
    return load(Backend.CPU)
