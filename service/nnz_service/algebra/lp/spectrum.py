"""The 2-norm of a matrix, which bounds the step of first-order methods."""

from __future__ import annotations

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import Backend, load
from nnz_kernels.formats import Csr
from nnz_service.algebra.lp.scaling import dot, norm

#: Steps of Lanczos: its largest value is then right to many digits. The power method
#: would come from below so slowly that the steps made from it diverge.
_STEPS = 100
_TINY = 1e-13


def spectral_norm(a: Csr[HostArray], at: Csr[HostArray]) -> float:
    """Return the largest singular value of *a*, by Lanczos; 1 where it is 0.

    Args:
        a: The matrix (m, n), finite.
        at: Its transpose.
    """
    kernels = load(Backend.CPU)
    q = np.random.default_rng(0).standard_normal(a.shape[0])
    q /= norm(q) or 1.0
    before, beta = np.zeros_like(q), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(_STEPS, a.shape[0])):
        w = kernels.spmv(a, kernels.spmv(at, q)) - beta * before
        alpha = dot(w, q)
        w -= alpha * q
        diagonal.append(alpha)
        beta = norm(w)
        if beta <= _TINY:
            break
        beside.append(beta)
        before, q = q, w / beta
    if not diagonal:
        return 1.0
    inner = beside[: len(diagonal) - 1]
    t = np.diag(diagonal) + np.diag(inner, 1) + np.diag(inner, -1)
    most = float(np.linalg.eigvalsh(t)[-1])
    return float(np.sqrt(most)) if 0 < most < np.inf else 1.0
