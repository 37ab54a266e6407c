"""Sparse vectors, the slow and obvious way: dictionaries and Python's floats."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nnz_kernels.api.vectors import (
    Duplicates,
    Zeros,
    check_factors,
    check_gather,
    check_policies,
    check_vectors,
    duplicate_error,
)
from nnz_kernels.arrays import HostArray, Workspace
from nnz_kernels.formats import Ragged, SparseVector


def axpy(
    u: SparseVector[HostArray],
    r: float,
    v: SparseVector[HostArray],
    /,
    *,
    workspace: Workspace | None = None,
    zeros: Zeros = "keep",
    duplicates: Duplicates = "sum",
) -> SparseVector[HostArray]:
    check_vectors(u, v)
    check_policies(zeros, duplicates)
    factor = check_factors([r], 1, u.values.dtype)[0]
    out = _table(u, duplicates, "u.indices")
    for i, value in _table(v, duplicates, "v.indices").items():
        term = float(factor) * value
        out[i] = out[i] + term if i in out else term
    return _packed(out, u, zeros)


def dot(
    u: SparseVector[HostArray],
    v: SparseVector[HostArray],
    /,
    *,
    workspace: Workspace | None = None,
) -> float:
    check_vectors(u, v)
    left, right = _table(u), _table(v)
    return float(sum(x * right[i] for i, x in left.items() if i in right))


def gather(x: HostArray, indices: HostArray, /) -> HostArray:
    check_gather(x, indices)
    return x[indices]


def scatter(u: SparseVector[HostArray], /) -> HostArray:
    out = np.zeros(u.size, u.values.dtype)
    for i, value in _table(u).items():
        out[i] = value
    return out


def axpy_many(
    us: Ragged[HostArray],
    r: HostArray,
    vs: Ragged[HostArray],
    /,
    *,
    zeros: Zeros = "keep",
    duplicates: Duplicates = "sum",
    threads: int | None = None,
) -> Ragged[HostArray]:
    check_vectors(us, vs)
    factors = check_factors(r, us.count, us.values.dtype)
    pairs = zip(_each(us), factors, _each(vs), strict=True)
    return _joined(
        [axpy(u, s, v, zeros=zeros, duplicates=duplicates) for u, s, v in pairs], us
    )


def dot_many(
    us: Ragged[HostArray], vs: Ragged[HostArray], /, *, threads: int | None = None
) -> HostArray:
    check_vectors(us, vs)
    pairs = zip(_each(us), _each(vs), strict=True)
    return np.array([dot(u, v) for u, v in pairs], np.float64)


def combine(
    u0: SparseVector[HostArray],
    r: HostArray,
    vs: Ragged[HostArray],
    /,
    *,
    workspace: Workspace | None = None,
    zeros: Zeros = "keep",
) -> SparseVector[HostArray]:
    check_vectors(u0, vs)
    check_policies(zeros)
    factors = check_factors(r, vs.count, u0.values.dtype)
    out = _table(u0)
    for factor, v in zip(factors, _each(vs), strict=True):
        for i, value in zip(v.indices, v.values, strict=True):
            out[int(i)] = out.get(int(i), 0.0) + float(factor) * float(value)
    return _packed(out, u0, zeros)


def _table(
    u: SparseVector[HostArray], duplicates: Duplicates = "sum", name: str = ""
) -> dict[int, float]:
    """Return index -> value in order of first appearance."""
    table: dict[int, float] = {}
    for position, (i, value) in enumerate(zip(u.indices, u.values, strict=True)):
        index, entry = int(i), float(value)
        if index in table and duplicates == "error":
            raise duplicate_error(name, position, index)
        if index in table and duplicates == "sum":
            entry = table[index] + entry
        table[index] = entry
    return table


def _packed(
    table: dict[int, float], like: SparseVector[HostArray], zeros: Zeros
) -> SparseVector[HostArray]:
    indices = np.array(list(table), like.indices.dtype)
    with np.errstate(over="ignore"):  # beyond float32 is an infinity
        values = np.array(list(table.values())).astype(like.values.dtype)
    if zeros == "drop_exact":
        indices, values = indices[values != 0], values[values != 0]
    return SparseVector(indices, values, like.size)


def _each(us: Ragged[HostArray]) -> Iterable[SparseVector[HostArray]]:
    for start, stop in zip(us.indptr[:-1], us.indptr[1:], strict=True):
        yield SparseVector(us.indices[start:stop], us.values[start:stop], us.size)


def _joined(
    vectors: list[SparseVector[HostArray]], like: Ragged[HostArray]
) -> Ragged[HostArray]:
    counts = [v.nnz for v in vectors]
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(like.indices.dtype)
    indices = np.concatenate([like.indices[:0], *(v.indices for v in vectors)])
    values = np.concatenate([like.values[:0], *(v.values for v in vectors)])
    return Ragged(indptr, indices, values, like.size)
