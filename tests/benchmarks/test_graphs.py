"""Graph algorithms beside scipy.sparse.csgraph, on one core each.

Run with ``pytest -m benchmark -s tests/benchmarks/test_graphs.py``. Two graphs: a
Kronecker one, whose degrees differ a thousandfold (R-MAT, Chakrabarti, Zhan and
Faloutsos 2004, with the parameters of Graph500), and a grid, whose paths are long. Both
sides take the stored matrix to the whole answer, in turns in one process, and answers
are compared before anything is timed. Where csgraph has no such algorithm, its users
take products of SciPy's matrices, and so does the peer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse import csgraph

from nnz_kernels.backends import Backend
from nnz_kernels.convert import csr_from_scipy
from nnz_service.algebra.graphs import (
    Components,
    Levels,
    PageRank,
    Triangles,
    shortest_paths,
)
from nnz_service.algebra.operator import MatrixOperator

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]

ROUNDS = 25
SCALE, EDGE_FACTOR, SIDE = 16, 8, 300
Call = Callable[[], Any]


def rmat() -> Any:
    """Undirected, weights from 0 to 1; vertices are shuffled, as Graph500 does."""
    rng = np.random.default_rng(1)
    n, edges = 1 << SCALE, EDGE_FACTOR << SCALE
    ends = np.zeros((2, edges), np.int64)
    for _ in range(SCALE):
        quarter = np.searchsorted(np.cumsum([0.57, 0.19, 0.19]), rng.random(edges))
        ends = 2 * ends + [quarter >> 1, quarter & 1]
    ends = rng.permutation(n)[ends]
    return _undirected(n, ends, rng)


def grid() -> Any:
    """Neighbours left, right, above and below, weights from 0 to 1."""
    numbers = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    right = [numbers[:, :-1].ravel(), numbers[:, 1:].ravel()]
    down = [numbers[:-1].ravel(), numbers[1:].ravel()]
    ends = np.concatenate([right, down], axis=1)
    return _undirected(SIDE * SIDE, ends, np.random.default_rng(2))


def _undirected(n: int, ends: Any, rng: Any) -> Any:
    half = sp.coo_array((rng.random(ends.shape[1]) + 1e-3, ends), shape=(n, n)).tocsr()
    half.setdiag(0)
    half.eliminate_zeros()
    whole = sp.csr_array(half.maximum(half.T))
    whole.sort_indices()
    return whole


GRAPHS = {"rmat": rmat(), "grid": grid()}


def ended(course: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    while not course.round():
        pass
    found: tuple[dict[str, Any], dict[str, Any]] = course.result()
    return found


def _source(a: Any) -> int:
    """Return the vertex with most edges, from which all that matters is reached."""
    return int(np.diff(a.indptr).argmax())


def bfs(a: Any, mine: MatrixOperator) -> tuple[Call, Call]:
    """csgraph gives orders and predecessors; distances in edges take it longer."""
    source = _source(a)
    hops = csgraph.dijkstra(a, indices=source, unweighted=True)
    levels = ended(Levels(mine, source))[1]["levels"]
    np.testing.assert_array_equal(levels, np.where(np.isinf(hops), -1, hops))
    return (
        lambda: ended(Levels(mine, source)),
        lambda: csgraph.breadth_first_order(a, source),
    )


def sssp(a: Any, mine: MatrixOperator) -> tuple[Call, Call]:
    source = _source(a)
    wanted = csgraph.dijkstra(a, indices=source)
    found = ended(shortest_paths(mine, source))[1]["distances"]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    return (
        lambda: ended(shortest_paths(mine, source)),
        lambda: csgraph.dijkstra(a, indices=source),
    )


def components(a: Any, mine: MatrixOperator) -> tuple[Call, Call]:
    """The peer is told that the graph is undirected; ours is not."""

    def theirs() -> Any:
        return csgraph.connected_components(a, directed=False)

    count, labels = theirs()
    facts, found = ended(Components(mine))
    pairs = {*zip(labels.tolist(), found["labels"].tolist(), strict=True)}
    assert facts["components"] == count == len(pairs)
    return lambda: ended(Components(mine)), theirs


def triangles(a: Any, mine: MatrixOperator) -> tuple[Call, Call]:
    """The peer: all pairs of edges below the diagonal, those that a third one closes.

    Its vertices are numbered by degree before, outside of the time.
    """
    order = np.argsort(-np.diff(a.indptr), kind="stable")
    ordered = sp.csr_array(a[order][:, order])

    def theirs() -> int:
        lower = sp.tril(ordered, -1, format="csr")
        lower.data[:] = 1
        return int((lower @ lower).multiply(lower).sum())

    assert ended(Triangles(mine))[0]["triangles"] == theirs()
    return lambda: ended(Triangles(mine)), theirs


def pagerank(a: Any, mine: MatrixOperator) -> tuple[Call, Call]:
    """NetworkX's loop on SciPy's matrices."""
    n, tol = a.shape[0], 1e-10

    def theirs() -> Any:
        sums = np.asarray(a.sum(axis=1))
        stuck = np.flatnonzero(sums == 0)
        shares = sp.diags_array(1 / np.where(sums == 0, np.inf, sums)) @ a
        x = np.full(n, 1 / n)
        while True:
            last = x
            x = 0.85 * (x @ shares + x[stuck].sum() / n) + 0.15 / n
            if np.abs(x - last).sum() < n * tol:
                return x

    found = ended(PageRank(mine, tol=tol))[1]["ranks"]
    np.testing.assert_allclose(found, theirs(), rtol=1e-6)
    return lambda: ended(PageRank(mine, tol=tol)), theirs


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("make", [bfs, sssp, components, triangles, pagerank])
def test_against_csgraph(name: str, make: Any) -> None:
    a = GRAPHS[name]
    ours, theirs = make(a, MatrixOperator(csr_from_scipy(a), Backend.CPU, threads=1))
    times: dict[Call, list[float]] = {ours: [], theirs: []}
    for call in [ours, theirs] * ROUNDS:
        began = time.perf_counter()
        call()
        times[call].append(1e3 * (time.perf_counter() - began))
    mine, peer = (statistics.median(found) for found in times.values())

    print(f"\n{make.__name__} {name}: {peer / mine:.1f}x ({mine:.2f}, {peer:.2f} ms)")
    assert peer >= mine
