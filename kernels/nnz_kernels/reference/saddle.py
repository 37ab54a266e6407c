"""Primal-dual hybrid gradients, the slow and obvious way."""

from __future__ import annotations

import numpy as np

from nnz_kernels.api.saddle import check_saddle
from nnz_kernels.arrays import HostArray
from nnz_kernels.reference.products import spmv
from nnz_kernels.saddle import SaddleProblem, SaddleState


def halpern_pdhg(
    problem: SaddleProblem[HostArray],
    state: SaddleState[HostArray],
    tau: float,
    sigma: float,
    done: int,
    count: int,
    /,
    *,
    threads: int | None = None,
) -> None:
    check_saddle(problem, state)
    p, s = problem, state
    for k in range(done, done + count):
        t = s.x - tau * (p.c - spmv(p.at, s.y))
        s.xh[:] = np.minimum(np.maximum(t, p.lv), p.uv)
        s.r[:] = (s.xh - t) / tau
        s.xb[:] = 2 * s.xh - s.x
        q = s.y / sigma - spmv(p.a, s.xb)
        s.yh[:] = sigma * (q - np.minimum(np.maximum(q, -p.uc), -p.lc))
        yb = 2 * s.yh - s.y
        s.dx[:], s.dy[:] = s.x - s.xb, s.y - yb
        keep, pull = (k + 1) / (k + 2), 1 / (k + 2)
        s.x[:] = keep * s.xb + pull * s.x0
        s.y[:] = keep * yb + pull * s.y0
