"""Steps of graph algorithms, on every back-end that has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels.sparse_cases import matrix, of

from nnz_kernels.api.graphs import BLOCK, GraphOps, Links, Search, Settling
from nnz_kernels.backends import Backend, load_graphs
from nnz_kernels.cpu import catalog
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.formats import Csr

INF = np.inf
reference = load_graphs(Backend.REFERENCE)

#: 0 -> 1 -> 2 -> 0 and 0 -> 2, with weights; 3 alone with a loop.
SMALL = of([[0, 1, 5, 0], [0, 0, 2, 0], [4, 0, 0, 0], [0, 0, 0, 9]])


@pytest.fixture(params=[Backend.REFERENCE, Backend.CPU])
def ops(request: pytest.FixtureRequest) -> GraphOps:
    return load_graphs(request.param)


def graph(n: int, density: float, index: Any = np.int32) -> Csr[Any]:
    a = matrix((n, n), np.float64, index, density)
    return replace(a, data=np.abs(a.data))


class TestByHand:
    """On four vertices."""

    def test_search(self, ops: GraphOps) -> None:
        state = Search.begin(SMALL, 1)

        assert ops.search(SMALL, state, 100)
        assert state.levels.tolist() == [2, 0, 1, -1]
        assert state.queue[: state.tail].tolist() == [1, 2, 0]

    def test_settle(self, ops: GraphOps) -> None:
        """The way by 1 is shorter than the edge."""
        state = Settling.begin(SMALL, 0)

        assert ops.settle(SMALL, state, 100)
        assert state.distances.tolist() == [0, 1, 3, INF]
        assert (state.size, state.settled) == (0, 3)

    def test_weights_of_zero_and_infinite_sums(self, ops: GraphOps) -> None:
        """A stored zero is an edge; a path that is too long to tell is none."""
        a = of([[0, 1, 1e308, 0], [0, 0, 1, 0], [0, 0, 0, 1e308], [0, 0, 0, 0]])
        a = replace(a, data=np.array([0.0, 1e308, 1e308, 1e308]))
        state = Settling.begin(a, 0)

        with np.errstate(over="ignore"):
            assert ops.settle(a, state, 100)
        assert state.distances.tolist() == [0, 0, 1e308, INF]

    def test_trees(self, ops: GraphOps) -> None:
        parents = np.arange(4, dtype=np.int32)

        assert ops.join(SMALL, parents, 0, 100) == 4
        labels, count = ops.labels(parents)
        assert (labels.tolist(), count) == ([0, 0, 0, 1], 2)

    def test_triangles(self, ops: GraphOps) -> None:
        """The loop at 3 is no edge, and 0 - 2 is one, though it is stored twice."""
        links = ops.orient(SMALL)

        # degrees 3, 2, 3, 2: vertices 1, 3, 0, 2 become 0, 1, 2, 3
        rows = np.split(links.indices, links.indptr[1:-1])
        assert [sorted(row.tolist()) for row in rows] == [[2, 3], [], [3], []]
        assert links.wedges().tolist() == [0, 3, 3, 4, 4]
        assert ops.triangles(links, links.wedges(), 0, 4) == 1
        assert ops.triangles(links, links.wedges(), 1, 4) == 0

    def test_follow(self, ops: GraphOps) -> None:
        """0.5 * (what comes in) + 1, weighted or not."""
        links = ops.turn(SMALL)
        x, shares = np.ones(4), np.array([1.0, 2, 4, 8])

        assert links.indptr.tolist() == [0, 1, 2, 4, 5]
        assert links.indices.tolist() == [2, 0, 0, 1, 3]
        out, change = ops.follow(links, x, shares, 0.5, 1.0)
        assert out.tolist() == [3, 1.5, 2.5, 5]
        assert change == 8

        weighted = replace(links, weights=np.array([4.0, 1, 5, 2, 9]))
        out, _ = ops.follow(weighted, x, shares, 0.5, 1.0)
        assert out.tolist() == [9, 1.5, 5.5, 37]

    def test_refusals(self, ops: GraphOps) -> None:
        wide, single = of([[1, 2]]), of([[1.0]], np.float32)
        with pytest.raises(ShapeError, match=r"\(1, 2\) is no graph: not square"):
            ops.orient(wide)
        with pytest.raises(DTypeError, match="weights are float32, but must be float6"):
            ops.settle(single, Settling.begin(single, 0), 1)

    def test_nobody(self, ops: GraphOps) -> None:
        nobody = of(np.zeros((0, 0)))
        links, parents = ops.orient(nobody), np.arange(0, dtype=np.int32)

        assert ops.triangles(links, links.wedges(), 0, 0) == 0
        assert ops.turn(nobody).vertices == ops.join(nobody, parents, 0, 1) == 0
        assert ops.labels(parents)[1] == 0


SIZES = [(1, 1.0), (65, 0.02), (130, 0.1), (64, 0.7)]


def compare(ops: GraphOps, a: Csr[Any], edges: int) -> None:
    """Every step against the reference, with work cut in another way."""
    n = a.shape[0]
    one, two = Search.begin(a, n // 2), Search.begin(a, n // 2)
    while not ops.search(a, one, edges):
        one = Search.resume(a, one.levels, one.queue[one.head : one.tail])
    assert reference.search(a, two, 10**9)
    np.testing.assert_array_equal(one.levels, two.levels)
    np.testing.assert_array_equal(one.seen, two.seen)

    mine, wanted = Settling.begin(a, n // 2), Settling.begin(a, n // 2)
    while not ops.settle(a, mine, edges):
        waiting = mine.heap[: mine.size]
        np.testing.assert_array_equal(mine.keys[: mine.size], mine.distances[waiting])
        mine = Settling.resume(a, mine.distances, waiting, mine.settled)
    assert reference.settle(a, wanted, 10**9)
    np.testing.assert_array_equal(mine.distances, wanted.distances)
    assert mine.settled == wanted.settled

    parents = [np.arange(n, dtype=a.indices.dtype) for _ in range(2)]
    row = 0
    while row < n:
        row = ops.join(a, parents[0], row, edges)
    assert reference.join(a, parents[1], 0, 10**9) == n
    labels = ops.labels(parents[0]), reference.labels(parents[1])
    np.testing.assert_array_equal(labels[0][0], labels[1][0])
    assert labels[0][1] == labels[1][1]
    compare_links(ops, a)


def compare_links(ops: GraphOps, a: Csr[Any]) -> None:
    mine, wanted = ops.orient(a), reference.orient(a)
    np.testing.assert_array_equal(mine.indptr, wanted.indptr)
    ends = mine.indptr[1:-1]
    for row, other in zip(
        np.split(mine.indices, ends), np.split(wanted.indices, ends), strict=True
    ):
        assert sorted(row.tolist()) == other.tolist()
    wedges, n = mine.wedges(), a.shape[0]
    found = [ops.triangles(mine, wedges, s, min(s + 7, n)) for s in range(0, n, 7)]
    assert sum(found) == reference.triangles(wanted, wedges, 0, n)

    mine, wanted = ops.turn(a), reference.turn(a)
    np.testing.assert_array_equal(mine.indptr, wanted.indptr)
    np.testing.assert_array_equal(mine.indices, wanted.indices)
    x, shares = (np.random.default_rng(s).random(n) for s in (1, 2))
    for weights in (None, a.data):
        given = replace(mine, weights=weights), x, shares, 0.85, 0.1
        for got, value in zip(
            ops.follow(*given), reference.follow(*given), strict=True
        ):
            np.testing.assert_allclose(got, value, rtol=1e-13)


@pytest.mark.parametrize("edges", [1, 40, 10**9])
@pytest.mark.parametrize(("n", "density"), SIZES)
def test_the_reference_is_met(n: int, density: float, edges: int) -> None:
    compare(load_graphs(Backend.CPU), graph(n, density), edges)


@pytest.mark.slow
def test_indices_of_64_bits() -> None:
    """The rare variants, which compile when they are first called."""
    compare(load_graphs(Backend.CPU), graph(65, 0.2, np.int64), 40)


def test_threads_change_no_bit() -> None:
    ops, n = load_graphs(Backend.CPU), 5 * BLOCK + 3
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 60, n)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    links = Links(indptr, rng.integers(0, n, indptr[-1]).astype(np.int32))
    x, shares = rng.random(n), rng.random(n)

    found = [ops.follow(links, x, shares, 0.85, 0.1, threads=t) for t in (1, 2, 3)]

    assert len({(out.tobytes(), change) for out, change in found}) == 1


def test_triangles_by_several_threads() -> None:
    """All of a complete graph, twice as large as one thread would get."""
    ops, n = load_graphs(Backend.CPU), 80
    links = ops.orient(of(np.ones((n, n))))

    for threads in (1, 2, None):
        found = ops.triangles(links, links.wedges(), 0, n, threads=threads)
        assert found == n * (n - 1) * (n - 2) // 6


def test_no_step_has_types_outside_the_catalog() -> None:
    for entry in catalog.graph_steps.ENTRIES:
        unknown = {*entry.function.signatures} - {*entry.signatures, *entry.rare}
        assert not unknown, entry.name
