"""Sparse products on two threads, beside SciPy, MKL and SuiteSparse:GraphBLAS.

Run with ``pytest -m benchmark -s tests/benchmarks/bench_algebra.py``; peers come with
``pip install mkl sparse-dot-mkl python-graphblas``, and those that are missing are left
out. Data are float64 in CSR with sorted rows, and so are the results of SpGEMM, for
which MKL is asked and which SciPy's are sorted for. Ours come in memory that was used
before; MKL is called both as its users call it and with memory to write to, which is
told but is no peer: nobody else offers it. All sides run in turns in one
process, warm; each answer is compared with SciPy's before anything is timed. Threads of
OpenMP go on spinning when their work is done, and slow down whoever comes next: each
turn begins with a pause and a call that is not timed.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from nnz_kernels import cpu
from nnz_kernels.backends import Backend, load_sparse
from nnz_kernels.convert import csr_from_scipy

pytestmark = pytest.mark.benchmark

THREADS = 2

#: Seconds that idle threads of OpenMP spin; Intel's 0.2 by default.
SPIN = 0.3
Call = Callable[[], Any]

#: MKL with memory for the result; and what is no peer.
GIVEN = "mkl given memory"
OURS = ("nnz", GIVEN)


def band() -> Any:
    """Seven diagonals side by side, 1e6 rows."""
    n, rng = 1_000_000, np.random.default_rng(0)
    lines = [rng.standard_normal(n) for _ in range(7)]
    return scipy.sparse.diags_array(lines, offsets=range(-3, 4), shape=(n, n)).tocsr()


def scattered() -> Any:
    """Six random entries a row, 3e5 rows."""
    n, rng = 300_000, np.random.default_rng(0)
    rows, columns = np.repeat(np.arange(n), 6), rng.integers(0, n, 6 * n)
    return _csr(rng.standard_normal(6 * n), rows, columns, n)


def poisson() -> Any:
    """Seven points of a cube of 100 x 100 x 100."""
    line = scipy.sparse.diags_array([-1.0, 2, -1], offsets=[-1, 0, 1], shape=(100, 100))
    plane = scipy.sparse.kronsum(line, line)
    return scipy.sparse.csr_array(scipy.sparse.kronsum(plane, line))


def graph() -> Any:
    """R-MAT (Chakrabarti 2004; .57, .19, .19), 2**17 vertices, 8 edges a vertex."""
    scale, rng = 17, np.random.default_rng(0)
    count = 8 << scale
    rows = np.zeros(count, np.int64)
    columns = np.zeros(count, np.int64)
    for _ in range(scale):
        quarter = np.searchsorted(np.cumsum([0.57, 0.19, 0.19]), rng.random(count))
        rows, columns = 2 * rows + quarter // 2, 2 * columns + quarter % 2
    return _csr(rng.standard_normal(count), rows, columns, 1 << scale)


def _csr(data: Any, rows: Any, columns: Any, n: int) -> Any:
    a = scipy.sparse.coo_array((data, (rows, columns)), shape=(n, n)).tocsr()
    a.sum_duplicates()
    return a


def mkl() -> Any:
    """Return sparse-dot-mkl on two threads, or None."""
    if importlib.util.find_spec("sparse_dot_mkl") is None:
        return None
    found = sorted(Path(sys.prefix, "lib").glob("libmkl_rt.so*"))
    if found:
        os.environ.setdefault("MKL_RT", str(found[0]))
    import sparse_dot_mkl

    sparse_dot_mkl.mkl_set_num_threads(THREADS)
    return sparse_dot_mkl


def graphblas() -> Any:
    """Return python-graphblas on two threads, or None."""
    if importlib.util.find_spec("graphblas") is None:
        return None
    import graphblas

    graphblas.ss.config["nthreads"] = THREADS
    return graphblas


def products(a: Any, width: int) -> dict[str, Call]:
    """Return A x, or A X for a block."""
    shape = (a.shape[1],) if width == 1 else (a.shape[1], width)
    x, ours = np.random.default_rng(1).standard_normal(shape), csr_from_scipy(a)
    multiply = cpu.spmv if width == 1 else cpu.spmm
    calls: dict[str, Call] = {
        "nnz": lambda: multiply(ours, x, threads=THREADS),
        "scipy": lambda: a @ x,
    }
    if (peer := mkl()) is not None:
        matrix = scipy.sparse.csr_matrix(a)
        calls["mkl"] = lambda: peer.dot_product_mkl(matrix, x)
        out = np.zeros((a.shape[0], *shape[1:]))
        given = {"out": out, "out_scalar": 0.0}
        calls[GIVEN] = lambda: peer.dot_product_mkl(matrix, x, **given)
    if (other := graphblas()) is not None and width == 1:
        there, vector = other.io.from_scipy_sparse(a), other.Vector.from_dense(x)
        calls["graphblas"] = lambda: there.mxv(vector).new()
    return calls


def eight(a: Any) -> dict[str, Call]:
    """Return A X of eight columns, at once and one by one."""
    x, ours = (
        np.random.default_rng(1).standard_normal((a.shape[1], 8)),
        csr_from_scipy(a),
    )
    columns = [np.ascontiguousarray(column) for column in x.T]
    return {
        "at once": lambda: cpu.spmm(ours, x, threads=THREADS),
        "apart": lambda: [cpu.spmv(ours, c, threads=THREADS) for c in columns],
        "scipy": lambda: a @ x,
    }


def square(a: Any) -> dict[str, Call]:
    """Return A A, with sorted rows."""
    ops, ours = load_sparse(Backend.CPU), csr_from_scipy(a)

    def sorted_by_scipy() -> Any:
        c = a @ a
        c.sort_indices()
        return c

    calls: dict[str, Call] = {
        "nnz": lambda: ops.spgemm(ours, ours, threads=THREADS),
        "scipy": sorted_by_scipy,
    }
    if (peer := mkl()) is not None:
        matrix = scipy.sparse.csr_matrix(a)
        calls["mkl"] = lambda: peer.dot_product_mkl(matrix, matrix, reorder_output=True)
    if (other := graphblas()) is not None:
        there = other.io.from_scipy_sparse(a)
        calls["graphblas"] = lambda: there.mxm(there).new()
    return calls


def check(found: Any, wanted: Any) -> None:
    """Compare an answer of any side with SciPy's."""
    if isinstance(found, list):
        found = np.stack(found, axis=1)
    if hasattr(found, "indptr"):
        np.testing.assert_array_equal(found.indptr, wanted.indptr)
        np.testing.assert_array_equal(found.indices, wanted.indices)
        found, wanted = found.data, wanted.data
    if isinstance(found, np.ndarray):
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-8)


def compare(calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each call of each side, after a check; in turns.

    A turn is three calls. Two virtual cores may be one core of the machine in one turn
    and two in the next, which is a factor of two to whoever reads memory: many turns.
    """
    wanted = calls["scipy"]()
    for call in calls.values():
        check(call(), wanted)
    del wanted
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(SPIN)
            call()
            for _ in range(3):
                start = time.perf_counter()
                call()
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def ratio_of(
    times: dict[str, list[float]], of: Callable[[list[float]], float]
) -> float:
    """Return the best peer's time over ours."""
    peers = min(of(ms) for name, ms in times.items() if name not in OURS)
    return peers / of(times["nnz"])


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("make", [band, scattered, poisson, graph])
def test_products(make: Callable[[], Any]) -> None:
    """Print the best peer's time over ours, by medians and by minima, and medians.

    Slower than half fails.
    """
    a = make()
    found = {
        "SpMV": compare(products(a, 1), 21),
        "SpMM x8": compare(products(a, 8), 9),
        "SpMM x32": compare(products(a, 32), 7),
        "SpGEMM": compare(square(a), 2),
    }
    print(f"\n{make.__name__}: {a.shape[0]} rows, {a.nnz} entries")
    for op, times in found.items():
        ratio, best = ratio_of(times, statistics.median), ratio_of(times, min)
        medians = {name: statistics.median(ms) for name, ms in times.items()}
        row = "  ".join(f"{name} {ms:.1f}" for name, ms in medians.items())
        print(f"  {op:9s} {ratio:5.2f}x  {best:5.2f}x  ({row} ms)", flush=True)
        assert ratio > 0.5, op
    times = compare(eight(a), 15)
    shares = [
        of(times["at once"]) / of(times["apart"]) for of in (statistics.median, min)
    ]
    row = "  ".join(f"{name} {statistics.median(ms):.1f}" for name, ms in times.items())
    print(
        f"  eight columns at once: {shares[0]:.2f}, {shares[1]:.2f} of eight ({row} ms)"
    )
