"""Linear solvers on a GPU beside those of CuPy, on Poisson's equation in a cube.

    python tests/benchmarks/bench_cuda_solvers.py --out results.json

Needs numpy, scipy, numba and cupy. The time is that of the iterations, with the checks
of the answer that ours makes; every answer is checked here again.
"""

from __future__ import annotations

import argparse
import datetime
import inspect
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
for folder in ("kernels", "service"):
    sys.path.insert(0, str(ROOT / folder))

import cupy
import cupyx.scipy.sparse
import cupyx.scipy.sparse.linalg
import numpy as np
import scipy.sparse

from nnz_kernels.backends import Backend
from nnz_kernels.convert import csr_from_scipy
from nnz_service.algebra.krylov import Done, Solve
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.solving import SolveSettings

#: Points along each edge of the cube.
SIDES = (25, 50, 100)

#: Of the residual, relative to that of zero.
RTOL = 1e-8

ROUNDS = 3

#: Methods of ours with their preconditioners; without one CuPy's can be asked too.
PAIRS = (
    ("cg", "none"), ("cg", "jacobi"), ("cg", "chebyshev"), ("cg", "ic0"),
    ("minres", "none"), ("gmres", "none"), ("bicgstab", "none"), ("bicgstab", "ilu0"),
)  # fmt: skip


def main() -> int:
    """Run all cases; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench-cuda-solvers.json"))
    options = parser.parse_args()
    device = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    rows: list[dict[str, Any]] = []
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    document = {"date": today, "device": device, "rtol": RTOL, "rows": rows}
    for side in SIDES:
        a = cube(side)
        b = a @ np.random.default_rng(0).standard_normal(a.shape[0])
        for method, preconditioner in PAIRS:
            rows.append(timed(a, b, method, preconditioner))
            print(json.dumps(rows[-1]), flush=True)
            options.out.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def cube(side: int) -> Any:
    """Return the seven-point Laplacian."""
    line = scipy.sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (side, side))
    found = scipy.sparse.kronsum(scipy.sparse.kronsum(line, line), line)
    return scipy.sparse.csr_matrix(found)


def timed(a: Any, b: Any, method: str, preconditioner: str) -> dict[str, Any]:
    """Solve by turns; medians of seconds, and the residuals."""
    row: dict[str, Any] = {
        "n": a.shape[0], "method": method, "preconditioner": preconditioner
    }  # fmt: skip
    calls: dict[str, Callable[[], tuple[Any, float]]] = {
        "nnz": lambda: ours(a, b, method, preconditioner, row)
    }
    peer = getattr(cupyx.scipy.sparse.linalg, method, None)
    if preconditioner == "none" and peer is not None:
        there = cupyx.scipy.sparse.csr_matrix(a), cupy.asarray(b)
        calls["cupyx"] = lambda: theirs(peer, *there)
    times: dict[str, list[float]] = {who: [] for who in calls}
    for number in range(ROUNDS + 1):
        for who, call in [*calls.items()]:
            try:
                x, took = call()
            except Exception as exc:  # whatever a foreign library may raise
                row.setdefault("missing", {})[who] = repr(exc)[:300]
                del calls[who]
                continue
            gap = float(np.linalg.norm(b - a @ x) / np.linalg.norm(b))
            row[f"residual_{who}"] = float(f"{gap:.1e}")
            if number:  # the first loads what there is to load
                times[who].append(took)
    row["s"] = {who: round(float(np.median(t)), 4) for who, t in times.items() if t}
    return row


def ours(
    a: Any, b: Any, method: str, preconditioner: str, row: dict[str, Any]
) -> tuple[Any, float]:
    """Return the answer and the seconds of the iterations."""
    settings = SolveSettings(method=method, preconditioner=preconditioner, rtol=RTOL)
    operator = MatrixOperator(csr_from_scipy(a), Backend.CUDA)
    began = time.perf_counter()
    solve = Solve(operator, b, settings=settings)
    while not solve.prepared:
        solve.make_ready(1)
    row["prepare_s"] = round(time.perf_counter() - began, 4)
    began = time.perf_counter()
    while not isinstance(found := solve.step(seconds=0.05), Done):
        pass
    took = time.perf_counter() - began
    row |= {"status": found.status, "iterations": found.outcomes[0].iterations}
    return found.x, took


def theirs(solve: Callable[..., Any], a: Any, b: Any) -> tuple[Any, float]:
    """Return CuPy's answer and the seconds that it took."""
    began = time.perf_counter()
    names = inspect.signature(solve).parameters
    settings = {"rtol" if "rtol" in names else "tol": RTOL}
    if "restart" in names:
        settings["restart"] = SolveSettings().restart
    x, _ = solve(a, b, **settings)
    found = cupy.asnumpy(x)
    return found, time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
