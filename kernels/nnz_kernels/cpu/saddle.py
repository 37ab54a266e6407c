"""Primal-dual hybrid gradients on the host: two fused passes an iteration.

A pass multiplies a row, steps, projects, reflects and averages before it goes to the
next row, so that no vector is read twice. A row is never shared between threads and is
added in stored order. All iterations between two checks are one call: on small programs
the calls would take longer than the work.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types

from nnz_kernels.api.saddle import check_saddle
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._entry import Entry
from nnz_kernels.cpu._runtime import PARALLEL, SERIAL, readable, thread_count
from nnz_kernels.formats import Csr
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
    # A pass does about as much for a row as for two entries.
    chunks = thread_count(threads, p.a.nnz + 2 * min(p.a.shape))
    bounds = tuple(readable(v) for v in (p.c, p.lc, p.uc, p.lv, p.uv))
    iterates = (s.x, s.y, s.x0, s.y0, s.xh, s.yh, s.r, s.dx, s.dy, s.xb)
    steps = float(tau), float(sigma)
    arrays = (_arrays(p.a), _arrays(p.at), bounds, iterates, steps, done, count)
    if chunks == 1:
        _run(*arrays)
    else:
        _run_chunks(*arrays, chunks)


def _arrays(a: Csr[HostArray]) -> tuple[HostArray, HostArray, HostArray]:
    return readable(a.indptr), readable(a.indices), readable(a.data)


@numba.njit(**SERIAL)
def _boundary(indptr, chunk, chunks):  # type: ignore[no-untyped-def]
    """Return the first row of a chunk; work is entries plus two a row."""
    rows = indptr.size - 1
    target = (indptr[rows] + 2 * rows) * chunk // chunks
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        if indptr[middle] + 2 * middle < target:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(**SERIAL)
def _primal(at, bounds, iterates, tau, keep, pull, last, start, stop):  # type: ignore[no-untyped-def]
    indptr, indices, data = at
    c, _, _, lv, uv = bounds
    x, y, x0, _, xh, _, r, dx, _, xb = iterates
    p = np.uint64(indptr[start])
    for j in range(start, stop):
        total = 0.0
        end = np.uint64(indptr[j + 1])
        while p < end:
            total += data[p] * y[np.uint64(indices[p])]
            p += np.uint64(1)
        t = x[j] - tau * (c[j] - total)
        h = min(max(t, lv[j]), uv[j])
        b = 2 * h - x[j]
        xb[j] = b
        if last:
            xh[j] = h
            r[j] = (h - t) / tau
            dx[j] = x[j] - b
        x[j] = keep * b + pull * x0[j]


@numba.njit(**SERIAL)
def _dual(a, bounds, iterates, sigma, keep, pull, last, start, stop):  # type: ignore[no-untyped-def]
    indptr, indices, data = a
    _, lc, uc, _, _ = bounds
    _, y, _, y0, _, yh, _, _, dy, xb = iterates
    p = np.uint64(indptr[start])
    for i in range(start, stop):
        total = 0.0
        end = np.uint64(indptr[i + 1])
        while p < end:
            total += data[p] * xb[np.uint64(indices[p])]
            p += np.uint64(1)
        q = y[i] / sigma - total
        h = sigma * (q - min(max(q, -uc[i]), -lc[i]))
        b = 2 * h - y[i]
        if last:
            yh[i] = h
            dy[i] = y[i] - b
        y[i] = keep * b + pull * y0[i]


@numba.njit(**SERIAL)
def _run(a, at, bounds, iterates, steps, done, count):  # type: ignore[no-untyped-def]
    tau, sigma = steps
    columns, rows = at[0].size - 1, a[0].size - 1
    for k in range(done, done + count):
        keep, pull = (k + 1) / (k + 2), 1 / (k + 2)
        last = k == done + count - 1
        _primal(at, bounds, iterates, tau, keep, pull, last, 0, columns)
        _dual(a, bounds, iterates, sigma, keep, pull, last, 0, rows)


@numba.njit(**PARALLEL)
def _run_chunks(a, at, bounds, iterates, steps, done, count, chunks):  # type: ignore[no-untyped-def]
    tau, sigma = steps
    for k in range(done, done + count):
        keep, pull = (k + 1) / (k + 2), 1 / (k + 2)
        last = k == done + count - 1
        for c in numba.prange(chunks):
            start, stop = _boundary(at[0], c, chunks), _boundary(at[0], c + 1, chunks)
            _primal(at, bounds, iterates, tau, keep, pull, last, start, stop)
        for c in numba.prange(chunks):
            start, stop = _boundary(a[0], c, chunks), _boundary(a[0], c + 1, chunks)
            _dual(a, bounds, iterates, sigma, keep, pull, last, start, stop)


def _signatures(tail: int) -> tuple[tuple[Any, ...], ...]:
    """Return argument types for both index types; *tail* integers at the end."""
    v, f = types.float64[::1], types.float64
    of: Any = types.Tuple  # numba has no types of its own
    return tuple(
        (
            of((i[::1], i[::1], v)),
            of((i[::1], i[::1], v)),
            of((v,) * 5),
            of((v,) * 10),
            of((f,) * 2),
            *(types.int64,) * tail,
        )
        for i in (types.int32, types.int64)
    )


ENTRIES = (Entry(_run, _signatures(2)), Entry(_run_chunks, _signatures(3)))
