"""Steps of graph algorithms, the slow and obvious way."""

from __future__ import annotations

import itertools

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


def search(a: Matrix, state: Search, edges: int, /) -> bool:
    check_graph(a)
    while state.head < state.tail and edges > 0:
        v = state.queue[state.head]
        state.head += 1
        for j in map(int, _row(a, v)):
            if state.levels[j] < 0:
                state.levels[j] = state.levels[v] + 1
                state.seen[j // 64] |= np.uint64(1 << j % 64)
                state.queue[state.tail] = j
                state.tail += 1
        edges -= 1 + _row(a, v).size
    return state.head == state.tail


def settle(a: Matrix, state: Settling, edges: int, /) -> bool:
    check_weights(a)
    waiting = state.heap[: state.size].tolist()
    while waiting and edges > 0:
        v = min(waiting, key=lambda u: state.distances[u])
        waiting.remove(v)
        state.settled += 1
        for p in range(a.indptr[v], a.indptr[v + 1]):
            j, far = int(a.indices[p]), state.distances[v] + a.data[p]
            if far < state.distances[j]:
                state.distances[j] = far
                waiting = [*(u for u in waiting if u != j), j]
        edges -= 1 + _row(a, v).size
    waiting.sort(key=lambda u: state.distances[u])  # what is in order is a heap
    state.size = len(waiting)
    state.heap[: state.size] = waiting
    state.keys[: state.size] = state.distances[waiting]
    state.places[waiting] = np.arange(state.size)
    return not waiting


def join(a: Matrix, parents: HostArray, row: int, edges: int, /) -> int:
    check_graph(a)
    while row < a.shape[0] and edges > 0:
        for j in _row(a, row):
            one, two = _root(parents, row), _root(parents, int(j))
            parents[max(one, two)] = min(one, two)
        edges -= 1 + _row(a, row).size
        row += 1
    return row


def labels(parents: HostArray, /) -> tuple[HostArray, int]:
    roots = [_root(parents, v) for v in range(parents.size)]
    numbers = {root: k for k, root in enumerate(dict.fromkeys(roots))}
    return np.array([numbers[root] for root in roots], np.int64), len(numbers)


def orient(a: Matrix, /) -> Links:
    check_graph(a)
    n = a.shape[0]
    degrees = np.diff(a.indptr) + np.bincount(a.indices, minlength=n)
    ranks = np.empty(n, np.int64)
    ranks[np.argsort(degrees, kind="stable")] = np.arange(n)
    rows: list[set[int]] = [set() for _ in range(n)]
    for i in range(n):
        for j in _row(a, i):
            low, high = sorted((int(ranks[i]), int(ranks[j])))
            if low < high:
                rows[low].add(high)
    kind = a.indices.dtype
    indptr = np.cumsum([0, *map(len, rows)]).astype(kind)
    return Links(indptr, np.array([j for row in rows for j in sorted(row)], kind))


def triangles(
    links: Links,
    wedges: HostArray,
    start: int,
    stop: int,
    /,
    *,
    threads: int | None = None,
) -> int:
    rows = [
        set(links.indices[p:q].tolist()) for p, q in itertools.pairwise(links.indptr)
    ]
    return sum(
        max(v, w) in rows[min(v, w)]
        for row in rows[start:stop]
        for v, w in itertools.combinations(row, 2)
    )


def turn(a: Matrix, /) -> Links:
    check_graph(a)
    rows = np.repeat(np.arange(a.shape[0]), np.diff(a.indptr))
    order = np.argsort(a.indices, kind="stable")
    counts = np.bincount(a.indices, minlength=a.shape[0])
    kind = a.indices.dtype
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(kind)
    return Links(indptr, rows[order].astype(kind))


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
    out = np.empty_like(x)
    for i in range(links.vertices):
        total = 0.0
        for p in range(links.indptr[i], links.indptr[i + 1]):
            weight = 1.0 if links.weights is None else links.weights[p]
            total += weight * shares[links.indices[p]]
        out[i] = damping * total + jump
    changes = np.abs(out - x)
    starts = range(0, x.size, BLOCK)
    return out, float(sum(sum(changes[s : s + BLOCK]) for s in starts))


def _row(a: Matrix, i: int) -> HostArray:
    found: HostArray = a.indices[a.indptr[i] : a.indptr[i + 1]]
    return found


def _root(parents: HostArray, v: int) -> int:
    while parents[v] != v:
        v = int(parents[v])
    return v
