"""Sparse algebra on a GPU beside cuSPARSE and cupyx, where these have the same."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import cupy
import cupyx.scipy.sparse
import cupyx.scipy.sparse.linalg
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from cuda_problems import Make, Problem, check, on_device
from cuda_timing import Call, as_cupy
from cusparse import Cusparse

from nnz_kernels.api.semirings import SEMIRINGS
from nnz_kernels.api.sparse import Semiring
from nnz_kernels.backends import Backend, load_saddle
from nnz_kernels.cuda.kernels import CudaKernels
from nnz_kernels.formats import Csr, Ragged
from nnz_kernels.saddle import SaddleProblem, SaddleState

#: Iterations of a call of the linear programs' kernel.
ITERATIONS = 40

Matrix = Any


def problems(kernels: CudaKernels, raw: Cusparse, scale: float) -> Iterator[Make]:
    """Name problems one by one; *scale* makes them smaller."""
    for name, a in matrices(scale):
        for make in (product, again, total, turned, solved, sampled, saddle):
            yield partial(make, kernels, raw, name, a)
        for semiring in SEMIRINGS:
            yield partial(semiring_vector, kernels, semiring, name, a)
        yield partial(masked, kernels, raw, name, a)
    for batch in (sums_of_vectors, products_of_vectors):
        yield partial(batch, kernels, scale)


def matrices(scale: float) -> Iterator[tuple[str, Matrix]]:
    """A mesh, even rows, and a power law; square, float64, with a strong diagonal."""
    rng = np.random.default_rng(0)
    side = max(int(500 * scale**0.5), 6)
    line = scipy.sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (side, side))
    mesh = scipy.sparse.kronsum(line, line, "csr")
    yield f"mesh {side}x{side}", _ready(mesh)
    n = max(int(200_000 * scale), 40)
    shape, count = (n, n), 8 * n
    rows, columns = rng.integers(0, n, (2, count))
    even = scipy.sparse.coo_array((rng.random(count), (rows, columns)), shape)
    yield f"random {n}, 8 a row", _ready(even)
    rows = np.minimum(n * rng.power(0.4, count), n - 1).astype(np.int64)
    law = scipy.sparse.coo_array((rng.random(count), (rows, columns)), shape)
    yield f"power law {n}, 8 a row", _ready(law)


def _ready(a: Matrix) -> Matrix:
    found = scipy.sparse.csr_matrix(a, dtype=np.float64)
    found = scipy.sparse.csr_matrix(found + 10 * scipy.sparse.eye(found.shape[0]))
    found.sum_duplicates()
    found.sort_indices()
    return _narrow(found)


def _narrow(a: Matrix) -> Matrix:
    """Index with 32 bits, which SciPy does or does not."""
    a.indptr, a.indices = (x.astype(np.int32) for x in (a.indptr, a.indices))
    return a


def host(kernels: CudaKernels, found: Csr[Any]) -> Matrix:
    """Return a matrix of ours as SciPy's."""
    there = found.map(kernels.device.to_host)
    return scipy.sparse.csr_matrix(
        (there.data, there.indices, there.indptr), found.shape
    )


def same(found: Matrix, right: Matrix) -> None:
    """Stop where a sparse answer is wrong."""
    norm = scipy.sparse.linalg.norm
    check(np.array([1 + norm(found - right) / max(norm(right), 1e-30)]), np.ones(1))


def theirs(arrays: Any) -> Any:
    """Return a matrix of cupyx in the memory that `on_device` gave."""
    indptr, indices, data, shape = arrays
    return cupyx.scipy.sparse.csr_matrix((data, indices, indptr), shape)


def _norm(found: Any) -> Any:
    """Return what is compared of an answer of cupyx: its entries in order."""
    return cupy.asnumpy(found.sum(axis=1)).ravel()


def _bytes(*parts: Any) -> int:
    return sum(int(part.nbytes) for part in parts)


def _entries(*batches: Matrix) -> int:
    return _bytes(*(x for m in batches for x in (m.indptr, m.indices, m.data)))


def product(kernels: CudaKernels, raw: Cusparse, name: str, a: Matrix) -> Problem:
    """``A A``."""
    ours, arrays = on_device(kernels, a)
    found, right = kernels.spgemm(ours, ours), a @ a
    same(host(kernels, found), right)
    row = Problem(
        f"spgemm {name}",
        {"nnz": lambda: kernels.spgemm(ours, ours)},
        _bytes(ours, ours, found),
    )
    peer = theirs(arrays)
    row.ask("cupyx", lambda: lambda: peer @ peer, _norm, right.sum(axis=1).A1)
    return row


def again(kernels: CudaKernels, raw: Cusparse, name: str, a: Matrix) -> Problem:
    """``A A`` of a known pattern; cupyx keeps none."""
    ours, arrays = on_device(kernels, a)
    plan = kernels.plan_product(ours, ours)
    found, right = kernels.planned_product(plan, ours, ours), a @ a
    same(host(kernels, found), right)
    calls: dict[str, Call] = {"nnz": lambda: kernels.planned_product(plan, ours, ours)}
    row = Problem(f"spgemm of a plan {name}", calls, _bytes(ours, ours, found))
    peer = theirs(arrays)
    row.ask("cupyx", lambda: lambda: peer @ peer, _norm, right.sum(axis=1).A1)
    return row


def total(kernels: CudaKernels, raw: Cusparse, name: str, a: Matrix) -> Problem:
    """``2 A - B``, of patterns that differ."""
    b = _narrow(scipy.sparse.csr_matrix(a.T))
    b.sort_indices()
    (ours, one), (other, two) = on_device(kernels, a), on_device(kernels, b)
    found, right = kernels.add(2.0, ours, -1.0, other), 2 * a - b
    same(host(kernels, found), right)
    call = partial(kernels.add, 2.0, ours, -1.0, other)
    row = Problem(f"add {name}", {"nnz": call}, _bytes(ours, other, found))
    left, added = theirs(one), theirs(two)
    sums = (a + b).sum(axis=1).A1
    row.ask("cupyx", lambda: lambda: left + added, _norm, sums)
    return row


def turned(kernels: CudaKernels, raw: Cusparse, name: str, a: Matrix) -> Problem:
    """The transpose, in rows."""
    ours, arrays = on_device(kernels, a)
    found, right = kernels.transpose(ours), scipy.sparse.csr_matrix(a.T)
    same(host(kernels, found), right)
    call = partial(kernels.transpose, ours)
    row = Problem(f"transpose {name}", {"nnz": call}, _bytes(ours, found))
    peer = theirs(arrays)
    row.ask("cupyx", lambda: lambda: peer.T.tocsr(), _norm, right.sum(axis=1).A1)
    return row


def solved(kernels: CudaKernels, raw: Cusparse, name: str, a: Matrix) -> Problem:
    """``L x = b``; cuSPARSE has analysed L before, ours needs no analysis."""
    lower = _narrow(scipy.sparse.csr_matrix(scipy.sparse.tril(a)))
    lower.sort_indices()
    ours, arrays = on_device(kernels, lower)
    x = np.random.default_rng(1).standard_normal(a.shape[0])
    b = lower @ x
    there = kernels.device.to_device(b)
    check(kernels.device.to_host(kernels.triangular_solve(ours, there)), x)
    call = partial(kernels.triangular_solve, ours, there)
    row = Problem(f"triangular_solve {name}", {"nnz": call}, _bytes(ours, there, there))
    out, vector, peer = cupy.empty(x.size, x.dtype), as_cupy(there), theirs(arrays)
    row.ask(
        "cusparse SpSV",
        lambda: raw.spsv(arrays, vector, out),
        lambda _: cupy.asnumpy(out),
        x,
    )
    solve = cupyx.scipy.sparse.linalg.spsolve_triangular
    row.ask("cupyx", lambda: lambda: solve(peer, vector), cupy.asnumpy, x)
    return row


def sampled(kernels: CudaKernels, raw: Cusparse, name: str, a: Matrix) -> Problem:
    """Inner products of 32 numbers at each entry."""
    ours, arrays = on_device(kernels, a)
    rng, width = np.random.default_rng(1), 32
    x, y = (rng.standard_normal((size, width)) for size in a.shape)
    left, right = kernels.device.to_device(x), kernels.device.to_device(y)
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    dots = np.einsum("ij,ij->i", x[rows], y[a.indices])
    check(kernels.device.to_host(kernels.sddmm(ours, left, right).data), dots)
    call = partial(kernels.sddmm, ours, left, right)
    row = Problem(f"sddmm k=32 {name}", {"nnz": call}, _bytes(ours, left, right, dots))
    values = cupy.zeros(dots.size, dots.dtype)
    into = (arrays[0], arrays[1], values, arrays[3])
    row.ask(
        "cusparse",
        lambda: raw.sddmm(into, as_cupy(left), as_cupy(right)),
        lambda _: cupy.asnumpy(values),
        dots,
    )
    return row


def saddle(kernels: CudaKernels, raw: Cusparse, name: str, a: Matrix) -> Problem:
    """Iterations of PDHG; the peer only multiplies, with A and its transpose."""
    (rows, columns), rng = a.shape, np.random.default_rng(1)
    at = _narrow(scipy.sparse.csr_matrix(a.T))
    at.sort_indices()
    parts = [Csr(m.indptr, m.indices, m.data, m.shape) for m in (a, at)]
    problem = SaddleProblem(
        parts[0], parts[1], rng.standard_normal(columns), np.full(rows, -1.0),
        np.full(rows, np.inf), np.zeros(columns), np.ones(columns),
    )  # fmt: skip
    sizes = [columns, rows] * 2 + [columns, rows, columns, columns, rows, columns]
    state = SaddleState(*map(np.zeros, sizes))
    move = kernels.device.to_device
    there, at_device = problem.map(move), state.map(move)
    steps = 0.01, 0.01, 0, ITERATIONS
    kernels.halpern_pdhg(there, at_device, *steps)
    load_saddle(Backend.CPU).halpern_pdhg(problem, state, *steps)
    check(kernels.device.to_host(at_device.x), state.x)
    call = partial(kernels.halpern_pdhg, there, at_device, *steps)
    nbytes = ITERATIONS * (problem.nbytes + 4 * 8 * (rows + columns))
    row = Problem(f"pdhg x{ITERATIONS} {name}", {"nnz": call}, nbytes)
    right = a @ np.ones(columns)
    row.ask(
        "cusparse, products alone",
        lambda: _multiplying(raw, on_device(kernels, a)[1], on_device(kernels, at)[1]),
        cupy.asnumpy,
        right,
    )
    return row


def _multiplying(raw: Cusparse, a: Any, at: Any) -> Call:
    """Return as many products with A and its transpose as iterations need."""
    (rows, columns), kind = a[3], np.float64
    x, y, z = (
        cupy.ones(columns, kind),
        cupy.empty(rows, kind),
        cupy.empty(columns, kind),
    )
    calls = raw.spmv(a, x, y), raw.spmv(at, y, z)

    def run() -> Any:
        for _ in range(ITERATIONS):
            for call in calls:
                call()
        return y

    return run


def semiring_vector(
    kernels: CudaKernels, semiring: Semiring, name: str, a: Matrix
) -> Problem:
    """``A x`` over a semiring; no peer has them on a GPU."""
    ours, _ = on_device(kernels, a)
    x = np.random.default_rng(1).random(a.shape[1])
    there = kernels.device.to_device(x)
    join = np.add if semiring == "min_plus" else np.multiply
    folds = {"plus_times": np.add, "min_plus": np.minimum, "max_times": np.maximum}
    products = join(a.data, x[a.indices])
    if semiring == "or_and":
        products = np.ones(a.nnz)
    # The diagonal is there, so that no row is empty.
    right = folds.get(semiring, np.maximum).reduceat(products, a.indptr[:-1])
    call = partial(kernels.semiring_spmv, ours, there, semiring)
    check(kernels.device.to_host(call()), right)
    return Problem(f"{semiring} spmv {name}", {"nnz": call}, _bytes(ours, x, right))


def masked(kernels: CudaKernels, raw: Cusparse, name: str, a: Matrix) -> Problem:
    """``L L`` where L has entries, as triangles are counted; cupyx needs all of it."""
    lower = _narrow(scipy.sparse.csr_matrix(scipy.sparse.tril(a + a.T, -1)))
    lower.sort_indices()
    lower.data[:] = 1
    ours, arrays = on_device(kernels, lower)
    call = partial(kernels.semiring_product, ours, ours, "plus_times", ours)
    right = scipy.sparse.csr_matrix((lower @ lower).multiply(lower))
    found = host(kernels, call())
    same(found, right)
    row = Problem(f"masked product {name}", {"nnz": call}, _bytes(ours, ours, ours))
    peer = theirs(arrays)

    def whole() -> Any:
        return (peer @ peer).multiply(peer)

    row.ask("cupyx", lambda: whole, _norm, right.sum(axis=1).A1)
    return row


def batches(scale: float) -> tuple[int, list[Matrix]]:
    """Return two batches of sparse vectors, as matrices; some places come twice."""
    rng = np.random.default_rng(2)
    count, each, size = 200, max(int(10_000 * scale), 8), 1_000_000
    ends = np.arange(0, count * each + 1, each, dtype=np.int32)
    made = []
    for _ in range(2):
        places = rng.integers(0, size, count * each).astype(np.int32)
        data = rng.standard_normal(count * each)
        made.append(scipy.sparse.csr_matrix((data, places, ends), (count, size)))
    return each, made


def _ragged(kernels: CudaKernels, batch: Matrix) -> Ragged[Any]:
    arrays = (batch.indptr, batch.indices, batch.data)
    return Ragged(*map(kernels.device.to_device, arrays), batch.shape[1])


def sums_of_vectors(kernels: CudaKernels, scale: float) -> Problem:
    """``u + 0.5 v`` in batches; no peer has them on a GPU."""
    each, pair = batches(scale)
    us, vs = (_ragged(kernels, one) for one in pair)
    factors = np.full(pair[0].shape[0], 0.5)
    call = partial(kernels.axpy_many, us, factors, vs)
    sums = call()
    parts = [
        kernels.device.to_host(x) for x in (sums.values, sums.indices, sums.indptr)
    ]
    found = scipy.sparse.csr_matrix(tuple(parts), pair[0].shape)
    same(found, pair[0] + 0.5 * pair[1])
    name = f"axpy_many {factors.size} x {each}"
    return Problem(name, {"nnz": call}, _entries(*pair) + _bytes(*parts))


def products_of_vectors(kernels: CudaKernels, scale: float) -> Problem:
    """Inner products in batches; no peer has them on a GPU."""
    each, pair = batches(scale)
    us, vs = (_ragged(kernels, one) for one in pair)
    call = partial(kernels.dot_many, us, vs)
    right = pair[0].multiply(pair[1]).sum(axis=1).A1
    gap = np.abs(kernels.device.to_host(call()) - right).max()
    check(np.array([1 + gap]), np.ones(1))
    return Problem(f"dot_many {right.size} x {each}", {"nnz": call}, _entries(*pair))
