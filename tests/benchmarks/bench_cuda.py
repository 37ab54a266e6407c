"""One command on a GPU machine: tests, sanitizer, times beside floors and peers.

    python tests/benchmarks/bench_cuda.py --out results.json [--models FOLDER]

Needs numpy, scipy, numba, onnx, cupy and pytest. Every answer is checked before it is
timed. A floor is the bytes that must move over the measured speed of a copy.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
for folder in ("tests", "kernels", "service", "tests/benchmarks"):
    sys.path.insert(0, str(ROOT / folder))

import bench_cuda_algebra
import cupy
import cupyx.scipy.sparse
import numpy as np
import scipy.sparse
from cuda_problems import Make, Problem, check, on_device
from cuda_timing import Call, Clock, as_cupy
from cusparse import Cusparse

from nnz_kernels.api import ConvSpec
from nnz_kernels.backends import Backend, load
from nnz_kernels.cuda.kernels import CudaKernels
from nnz_kernels.planes import token_grid
from nnz_service import engine

ROUNDS = 25
#: Layers: name, outputs, inputs, tokens.
LAYERS = (
    ("bert 768x768", 768, 768, 128),
    ("bert 3072x768", 3072, 768, 128),
    ("square 4096", 4096, 4096, 64),
    ("square 4096 wide", 4096, 4096, 1024),
)


def main() -> int:
    """Run all parts; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench-cuda.json"))
    parser.add_argument("--models", type=Path, help="Folder of ONNX files to time.")
    parser.add_argument("--seconds", type=float, default=540, help="End before.")
    parser.add_argument("--scale", type=float, default=1.0, help="Of all sizes.")
    parser.add_argument("--skip-tests", action="store_true")
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    kernels: Any = load(Backend.CUDA)
    clock = Clock(kernels.device.launcher, ROUNDS)
    speed = clock.copy_speed()
    document: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": kernels.device.launcher.describe(),
        "copy_GBps": round(speed / 1e9),
    }
    print(json.dumps(document), flush=True)

    def save() -> None:
        options.out.write_text(json.dumps(document, indent=1) + "\n")

    raw = Cusparse(kernels.device.launcher.stream.ptr)
    for part, make_all, share in PARTS:
        rows = document[part] = []
        stop = time.monotonic() + share * options.seconds
        for make in make_all(kernels, raw, options.scale):
            if time.monotonic() > min(stop, until):
                break
            rows.append(timed(make, clock, speed))
            save()
    found = document["models"] = []
    for path in sorted(options.models.glob("*.onnx")) if options.models else ():
        if time.monotonic() > until:
            break
        found.append(time_model(path, kernels))
        save()
    if not options.skip_tests:
        for name, part in (("tests", run_tests), ("sanitizer", run_sanitizer)):
            left = until - time.monotonic()
            document[name] = part(left) if left > 10 else {"reason": "no time left"}
            save()
    return int(any("error" in row for part, *_ in PARTS for row in document[part]))


def timed(make: Make, clock: Clock, speed: float) -> dict[str, Any]:
    """Make one problem, time it and print its line; what fails there ends nothing."""
    try:
        with clock.launcher.stream:
            problem = make()
        times = clock.race(problem.calls)
    except (Exception, SystemExit) as exc:
        told = [part for part in make.args if isinstance(part, str | int | tuple)]
        row = {"name": f"{make.func.__name__} {told}", "error": repr(exc)[:400]}
        print(json.dumps(row), flush=True)
        return row
    ours = times["nnz"]
    floor = problem.nbytes / speed * 1e6
    row = {
        "name": problem.name,
        "us": {name: round(us, 2) for name, us in times.items()},
        "of_floor": round(floor / ours, 3),
        "ratios": {n: round(us / ours, 2) for n, us in times.items() if n != "nnz"},
        **({"missing": problem.missing} if problem.missing else {}),
    }
    print(f"{problem.name:40} {ours:9.1f} us  {row['of_floor']:6.1%}  {row['ratios']}")
    sys.stdout.flush()
    return row


# -- problems ---


def products(kernels: CudaKernels, raw: Cusparse, scale: float) -> Iterator[Make]:
    """Name products of matrices with something dense, one by one."""
    for dtype in (np.float64, np.float32):
        for name, matrix in matrices(dtype, scale):
            yield partial(spmv, kernels, raw, name, matrix)
            for width in (4, 32, 128):
                yield partial(spmm, kernels, raw, name, matrix, width)


def layers(kernels: CudaKernels, raw: Cusparse, scale: float) -> Iterator[Make]:
    """Name layers of networks, one by one."""
    for name, outputs, inputs, tokens in LAYERS:
        for block, density in ((4, 0.1), (4, 0.3), (1, 0.1), (16, 0.1), (None, 1.0)):
            sizes = (int(outputs * scale), int(inputs * scale), tokens)
            shape = tuple(max(size // 16, 2) * 16 for size in sizes)
            yield partial(layer, kernels, name, shape, block, density)


#: Name, problems, and share of the time at most.
PARTS = (
    ("algebra", bench_cuda_algebra.problems, 0.3),
    ("products", products, 0.4),
    ("layers", layers, 0.2),
)


def matrices(dtype: Any, scale: float) -> Iterator[tuple[str, Any]]:
    """Even rows, a mesh, and a power law."""
    rng = np.random.default_rng(0)
    n, each = max(int(1_000_000 * scale), 64), 30
    columns = rng.integers(0, n, n * each, dtype=np.int32)
    ends = np.arange(0, n * each + 1, each, dtype=np.int32)
    data = rng.standard_normal(n * each).astype(dtype)
    yield "random, 30 a row", scipy.sparse.csr_matrix((data, columns, ends), (n, n))
    side = max(int(1500 * scale**0.5), 6)
    line = scipy.sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (side, side))
    mesh = scipy.sparse.kronsum(line, line, "csr").astype(dtype)
    yield "mesh, 5 a row", mesh
    lengths = np.minimum(rng.zipf(1.7, n), n // 8).astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    columns = rng.integers(0, n, int(ends[-1]), dtype=np.int32)
    data = rng.standard_normal(columns.size).astype(dtype)
    yield "power law", scipy.sparse.csr_matrix((data, columns, ends), (n, n))


def spmv(kernels: CudaKernels, raw: Cusparse, name: str, matrix: Any) -> Problem:
    """``y = A x``."""
    ours, theirs = on_device(kernels, matrix)
    x = np.random.default_rng(1).standard_normal(matrix.shape[1]).astype(matrix.dtype)
    there = kernels.device.to_device(x)
    check(kernels.device.to_host(kernels.spmv(ours, there)), matrix @ x)
    vector, y = as_cupy(there), cupy.empty(matrix.shape[0], matrix.dtype)
    wrapper = cupyx.scipy.sparse.csr_matrix(
        (theirs[2], theirs[1], theirs[0]), matrix.shape
    )
    calls: dict[str, Call] = {
        "nnz": lambda: kernels.spmv(ours, there),
        "cupyx": lambda: wrapper @ vector,
    }
    for algorithm in (2, 3):
        calls[f"cusparse alg{algorithm - 1}"] = raw.spmv(
            theirs, vector, y, algorithm=algorithm
        )
    nbytes = ours.nbytes + there.nbytes + matrix.shape[0] * matrix.dtype.itemsize
    return Problem(f"spmv {matrix.dtype} {name}", calls, nbytes)


def spmm(
    kernels: CudaKernels, raw: Cusparse, name: str, matrix: Any, width: int
) -> Problem:
    """``Y = A X``, row-major."""
    ours, theirs = on_device(kernels, matrix)
    shape = (matrix.shape[1], width)
    x = np.random.default_rng(1).standard_normal(shape).astype(matrix.dtype)
    there = kernels.device.to_device(x)
    check(kernels.device.to_host(kernels.spmm(ours, there)), matrix @ x)
    y = cupy.empty((matrix.shape[0], width), matrix.dtype)
    calls = {
        "nnz": lambda: kernels.spmm(ours, there),
        "cusparse": raw.spmm(theirs, as_cupy(there), y),
    }
    nbytes = ours.nbytes + there.nbytes + int(y.nbytes)
    return Problem(f"spmm {matrix.dtype} {name} k={width}", calls, nbytes)


def layer(
    kernels: CudaKernels,
    name: str,
    shape: tuple[int, int, int],
    block: int | None,
    density: float,
) -> Problem:
    """A linear layer on tokens, every tiling, beside a dense product of cuBLAS."""
    outputs, inputs, tokens = shape
    device = kernels.device
    rng = np.random.default_rng(2)
    kept = rng.random((outputs // (block or 1), inputs)) < density
    weights = rng.standard_normal((outputs, inputs)).astype(np.float32)
    weights *= kept.repeat(block or 1, axis=0)
    grid = token_grid(tokens)
    rows = rng.standard_normal((tokens, inputs)).astype(np.float32)
    x = device.empty((grid.size(inputs),), np.float32)
    kernels.to_tokens(device.to_device(rows), x, grid)
    y = device.empty((grid.size(outputs),), np.float32)
    out = device.empty((tokens, outputs), np.float32)
    calls: dict[str, Call] = {}
    wide, spec = weights[:, :, None, None], ConvSpec()
    for tiling in kernels.tilings(wide.shape, spec, block, tokens):
        prepared = kernels.prepare_conv(wide, None, spec, block=block, tiling=tiling)
        bound = prepared.bind(grid, grid)
        scratch = device.empty((bound.scratch,), np.float32)
        call = bound.attach(x, y, None, scratch)
        call()
        kernels.from_tokens(y, grid, outputs, out)
        check(device.to_host(out), rows @ weights.T)
        calls[tiling] = call
    dense, columns = cupy.asarray(weights), cupy.asarray(np.ascontiguousarray(rows.T))
    product = cupy.empty((outputs, tokens), np.float32)
    named = {"nnz": next(iter(calls.values())), **calls}
    named["cublas fp32"] = lambda: cupy.matmul(dense, columns, out=product)
    nbytes = prepared.nbytes + 4 * tokens * (inputs + outputs)
    return Problem(f"{name} {block=} {density:.0%}", named, nbytes)


# -- models ---


def time_model(path: Path, kernels: CudaKernels) -> dict[str, Any]:
    """Time a model on the device, and on the CPU's back-end for its answer."""
    began = time.perf_counter()
    model = engine.load(path, backend="cuda")
    loading = time.perf_counter() - began
    exact = engine.load(path, backend="cpu", tuning_seconds=0)
    rng = np.random.default_rng(0)
    feeds = {
        info.name: rng.standard_normal([d or 1 for d in info.shape]).astype(np.float32)
        for info in model.inputs
    }
    found, right = model.run(feeds), exact.run(feeds)
    for name in right:
        check(found[name], right[name])
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        model.run(feeds)
        times.append(1e3 * (time.perf_counter() - began))
    model.measure(feeds)
    slowest = sorted(model.explain(), key=lambda r: -(r["ms"] or 0))[:5]
    row = {
        "name": path.stem,
        "load_s": round(loading, 2),
        "ms": round(float(np.median(times)), 3),
        "slowest": [[r["name"], r["kernel"], r["ms"]] for r in slowest],
    }
    print(json.dumps(row), flush=True)
    return row


# -- tests ---


def run_tests(seconds: float) -> dict[str, Any]:
    """Run the tests of the kernels on the device."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/kernels"]
    return run(command, seconds, NNZ_TEST_GPU="1")


def run_sanitizer(seconds: float) -> dict[str, Any]:
    """Run small cases under compute-sanitizer, where it is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"reason": "compute-sanitizer is not installed"}
    paths = ":".join(str(ROOT / one) for one in ("tests", "kernels", "service"))
    checked = (sys.executable, "-c", _CASES)
    return {
        kind: run(
            [tool, "--tool", kind, "--error-exitcode", "9", *checked],
            seconds / 3,
            PYTHONPATH=paths,
        )
        for kind in ("memcheck", "racecheck", "synccheck")
    }


def run(command: list[str], seconds: float, **environment: str) -> dict[str, Any]:
    """Run a command; what it has not done in time is no failure of the rest."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment},
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"reason": f"not done within {seconds:.0f} s"}
    print(done.stdout[-2000:], flush=True)
    return {"code": done.returncode, "tail": done.stdout[-400:]}


_CASES = """
from kernels.cuda_cases import CASES, compare
from nnz_kernels.backends import Backend, load
from nnz_kernels.hosted import hosted
kernels = hosted(load(Backend.CUDA))
for module in ("sparse_conv", "pool", "attention", "sort"):
    for case in CASES[module][:1]:
        for found, right in case(kernels):
            compare(found, right)
"""


if __name__ == "__main__":
    sys.exit(main())
