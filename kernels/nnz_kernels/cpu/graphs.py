"""Graph algorithms on the host: checks and memory. The loops are in `graph_steps`."""

from __future__ import annotations

import numpy as np

from nnz_kernels.api.graphs import (
    BLOCK,
    Links,
    Matrix,
    Search,
    Settling,
    check_graph,
    check_weights,
)
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu import graph_steps
from nnz_kernels.cpu._runtime import readable, thread_count


def search(a: Matrix, state: Search, edges: int, /) -> bool:
    check_graph(a)
    state.head, state.tail = graph_steps.search(
        *_pattern(a), state.levels, state.queue, state.seen, state.head, state.tail,
        edges,
    )  # fmt: skip
    return state.head == state.tail


def settle(a: Matrix, state: Settling, edges: int, /) -> bool:
    check_weights(a)
    state.size, settled = graph_steps.settle(
        *_pattern(a), readable(a.data), state.distances, state.heap, state.keys,
        state.places, state.size, edges,
    )  # fmt: skip
    state.settled += settled
    return state.size == 0


def join(a: Matrix, parents: HostArray, row: int, edges: int, /) -> int:
    check_graph(a)
    return int(graph_steps.join(*_pattern(a), parents, row, edges))


def labels(parents: HostArray, /) -> tuple[HostArray, int]:
    out = np.empty(parents.size, np.int64)
    return out, int(graph_steps.labels(parents, out))


def orient(a: Matrix, /) -> Links:
    check_graph(a)
    n, kind = a.shape[0], a.indices.dtype
    degrees = np.diff(a.indptr) + np.bincount(a.indices, minlength=n)
    starts = np.zeros(int(degrees.max(initial=0)) + 2, np.int64)
    ranks, indptr = np.empty(n, kind), np.zeros(n + 1, kind)
    graph_steps.ranks(degrees, starts, ranks)
    indices, marks = np.empty(a.nnz, kind), np.full(n, -1, kind)
    kept = graph_steps.orient(*_pattern(a), ranks, indptr, indices, marks)
    return Links(indptr, indices[:kept].copy())


def triangles(
    links: Links,
    wedges: HostArray,
    start: int,
    stop: int,
    /,
    *,
    threads: int | None = None,
) -> int:
    bounds = start + _cuts(wedges[start : stop + 1], threads)
    counts = np.empty(bounds.size - 1, np.int64)
    marks = np.zeros((counts.size, links.vertices // 64 + 1), np.uint64)
    if counts.size == 1:
        return int(
            graph_steps.common(links.indptr, links.indices, start, stop, marks[0])
        )
    graph_steps.triangles(links.indptr, links.indices, bounds, marks, counts)
    return int(counts.sum())


def turn(a: Matrix, /) -> Links:
    check_graph(a)
    kind = a.indices.dtype
    indptr = np.zeros(a.shape[0] + 1, kind)
    np.cumsum(np.bincount(a.indices, minlength=a.shape[0]), out=indptr[1:])
    indices = np.empty(a.nnz, kind)
    graph_steps.turn(*_pattern(a), indptr[:-1].copy(), indices)
    return Links(indptr, indices)


def follow(
    links: Links,
    x: HostArray,
    shares: HostArray,
    damping: float,
    jump: float,
    /,
    *,
    threads: int | None = None,
) -> tuple[HostArray, float]:
    weights = np.empty(0) if links.weights is None else links.weights
    out, changes = np.empty_like(x), np.empty(-(-x.size // BLOCK))
    starts = np.minimum(np.arange(changes.size + 1) * BLOCK, x.size)
    bounds = _cuts(links.indptr[starts].astype(np.int64) + starts, threads)
    given = links.indptr, links.indices, weights, x, shares, damping, jump, BLOCK
    if bounds.size == 2:
        graph_steps.follow(*given, 0, changes.size, out, changes)
    else:
        graph_steps.follow_together(*given, bounds, out, changes)
    return out, float(changes.sum())


def _cuts(work: HostArray, threads: int | None) -> HostArray:
    """Return where threads begin and end, int64, of running sums of work."""
    chunks = thread_count(threads, int(work[-1] - work[0]))
    goals = work[0] + (work[-1] - work[0]) * np.arange(chunks + 1) // chunks
    bounds: HostArray = np.searchsorted(work, goals)
    bounds[-1] = work.size - 1
    return bounds


def _pattern(a: Matrix) -> tuple[HostArray, HostArray]:
    return readable(a.indptr), readable(a.indices)
