"""Graph algorithms against csgraph, and against definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse import csgraph

from nnz_kernels.backends import Backend
from nnz_kernels.convert import csr_from_scipy
from nnz_service.algebra import graphs
from nnz_service.algebra.graphs import (
    Components,
    Levels,
    PageRank,
    Triangles,
    components,
    paths,
    relaxing,
    shortest_paths,
    triangles,
)
from nnz_service.algebra.graphs.relaxing import Relaxing
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidMatrixError


def graph(n: int, edges: float, seed: int = 1) -> Any:
    """Random weights from 0 to 1, some vertices without edges that go out."""
    rng = np.random.default_rng(seed)
    found = scipy.sparse.random_array((n, n), density=edges / n, rng=rng, format="csr")
    return scipy.sparse.csr_array(found)


def operator(matrix: Any) -> MatrixOperator:
    return MatrixOperator(csr_from_scipy(scipy.sparse.csr_array(matrix)), Backend.CPU)


def ended(course: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    while not course.round():
        pass
    found: tuple[dict[str, Any], dict[str, Any]] = course.result()
    return found


def ranks_by_definition(matrix: Any, damping: float, tol: float) -> Any:
    """NetworkX's loop, on a dense matrix."""
    dense, n = matrix.toarray(), matrix.shape[0]
    sums = dense.sum(axis=1)
    shares = dense / np.where(sums == 0, 1, sums)[:, None]
    x = np.full(n, 1 / n)
    while True:
        last, stuck = x, x[sums == 0].sum()
        x = damping * (last @ shares + stuck / n) + (1 - damping) / n
        if np.abs(x - last).sum() < n * tol:
            return x


class TestPageRank:
    @pytest.mark.parametrize("damping", [0.85, 0.3])
    def test_networkx(self, damping: float) -> None:
        a = graph(101, 2)
        assert (np.diff(a.indptr) == 0).any()

        facts, found = ended(PageRank(operator(a), damping, 1e-10, 1000))

        assert facts["status"] == "converged"
        wanted = ranks_by_definition(a, damping, 1e-10)
        np.testing.assert_allclose(found["ranks"], wanted, rtol=1e-10)
        assert found["ranks"].sum() == pytest.approx(1)

    def test_by_hand(self) -> None:
        """A pair that points at each other ends where it began."""
        facts, found = ended(PageRank(operator([[0.0, 2], [5, 0]])))

        assert found["ranks"].tolist() == [0.5, 0.5]
        assert facts["iterations"] == 1

    def test_sizes_of_weights_do_not_matter(self) -> None:
        """Not even of some that no inverse can be had of."""
        a = graph(101, 2)
        wanted = ended(PageRank(operator(a), tol=1e-12))[1]["ranks"]
        a.data *= 1e-306
        found = ended(PageRank(operator(a), tol=1e-12))[1]["ranks"]
        np.testing.assert_allclose(found, wanted, rtol=1e-9)

    @pytest.mark.parametrize("weight", [1.0, 3.0, 1e-320])
    def test_equal_weights(self, weight: float) -> None:
        a = graph(101, 2)
        a.data[:] = weight

        found = ended(PageRank(operator(a), tol=1e-10))[1]["ranks"]

        a.data[:] = 1
        wanted = ranks_by_definition(a, 0.85, 1e-10)
        np.testing.assert_allclose(found, wanted, rtol=1e-10)

    def test_limit(self) -> None:
        facts, _ = ended(PageRank(operator(graph(50, 3)), tol=0, maxiter=3))

        assert (facts["status"], facts["iterations"]) == ("iteration_limit", 3)

    def test_negative_weights_are_refused(self) -> None:
        with pytest.raises(InvalidMatrixError, match="entry 0 is -1"):
            PageRank(operator([[0.0, -1], [1, 0]]))


class TestPaths:
    @pytest.mark.parametrize("edges", [0.5, 1.5, 30])
    @pytest.mark.parametrize("few", [1, 40, 10**9])
    def test_csgraph(
        self, edges: float, few: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(paths, "EDGES", few)
        monkeypatch.setattr(relaxing, "NARROW", few)
        a = graph(301, edges)

        levels, distances, relaxed = (
            ended(kind(operator(a), source=7))[1]
            for kind in (Levels, shortest_paths, Relaxing)
        )

        hops = csgraph.dijkstra(a, indices=7, unweighted=True)
        wanted = np.where(np.isinf(hops), -1, hops)
        np.testing.assert_array_equal(levels["levels"], wanted)
        far = csgraph.bellman_ford(a, indices=7)
        np.testing.assert_allclose(distances["distances"], far, rtol=1e-12)
        assert relaxed["distances"].tobytes() == distances["distances"].tobytes()

    def test_a_long_path(self) -> None:
        """Each vertex knows the next; a shortcut of weight 10 is no gain before 10."""
        n = 40
        a = scipy.sparse.diags_array([np.ones(n - 1)], offsets=[1]).tolil()
        a[0, 20] = 10

        levels = ended(Levels(operator(a), 0))
        distances = ended(shortest_paths(operator(a), 0))

        assert levels[0] == {"status": "converged", "depth": 20, "reached": n}
        assert distances[1]["distances"].tolist() == [*range(20), *range(10, 30)]

    def test_both_ways_have_the_same_bits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a = operator(graph(301, 3))
        found = []
        for wide in (-1.0, 0.25, 2.0):
            monkeypatch.setattr(relaxing, "WIDE", wide)
            found.append(ended(Relaxing(a, 3)))

        assert found[0][0] == found[1][0] == found[2][0]
        assert len({arrays["distances"].tobytes() for _, arrays in found}) == 1

    def test_negative_weights(self) -> None:
        """A detour that pays, and a cycle that always pays."""
        detour, cycle = [[0.0, 2, 3], [0, 0, 0], [0, -4, 0]], [[0.0, 1], [-2, 0]]

        facts, found = ended(shortest_paths(operator(detour), 0))

        assert found["distances"].tolist() == [0, -1, 3]
        assert facts["status"] == "converged"
        facts, _ = ended(shortest_paths(operator(cycle), 0))
        assert facts["status"] == "unbounded"


class TestComponents:
    @pytest.mark.parametrize("few", [1, 10**9])
    @pytest.mark.parametrize("edges", [0.0, 0.4, 0.8, 5])
    def test_csgraph(
        self, edges: float, few: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(components, "EDGES", few)
        a = graph(501, edges)
        count, labels = csgraph.connected_components(a, connection="weak")

        facts, found = ended(Components(operator(a)))

        assert facts["components"] == count == found["labels"].max() + 1
        pairs = {*zip(labels.tolist(), found["labels"].tolist(), strict=True)}
        assert len(pairs) == count

    @pytest.mark.parametrize("n", [1, 2, 1000])
    def test_paths_and_stars(self, n: int) -> None:
        order = np.random.default_rng(0).permutation(n)
        for starts in (order[:-1], np.full(n - 1, order[0])):
            both = starts, order[1:]
            a = scipy.sparse.csr_array((np.ones(n - 1), both), shape=(n, n))
            facts, _ = ended(Components(operator(a)))
            assert facts["components"] == 1

    def test_nothing(self) -> None:
        assert ended(Components(operator(np.zeros((0, 0)))))[0]["components"] == 0


class TestTriangles:
    @pytest.mark.parametrize("edges", [1, 6, 40])
    def test_definition(self, edges: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sixth of the trace of the cube, in any number of parts."""
        a = graph(151, edges)
        both = ((a + a.T).toarray() != 0).astype(float)
        np.fill_diagonal(both, 0)
        wanted = round(np.trace(both @ both @ both) / 6)
        for part in (50, 10**9):
            monkeypatch.setattr(triangles, "PART", part)
            facts, arrays = ended(Triangles(operator(a)))
            assert (facts["triangles"], arrays) == (wanted, {})

    def test_by_hand(self) -> None:
        """All four of K4, whatever weights and loops say."""
        assert ended(Triangles(operator(-np.ones((4, 4)))))[0]["triangles"] == 4
        assert ended(Triangles(operator(np.zeros((0, 0)))))[0]["triangles"] == 0


MAKERS: dict[str, Callable[..., Any]] = {
    "pagerank": lambda a, **how: PageRank(a, tol=1e-12, **how),
    "bfs": lambda a, **how: Levels(a, 3, **how),
    "sssp": lambda a, **how: shortest_paths(a, 3, **how),
    "sssp of any sign": lambda a, **how: Relaxing(a, 3, **how),
    "components": Components,
    "triangles": Triangles,
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_restart_after_each_round_changes_no_bit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triangles, "PART", 100)
    monkeypatch.setattr(paths, "EDGES", 50)
    monkeypatch.setattr(relaxing, "NARROW", 50)
    monkeypatch.setattr(components, "EDGES", 50)
    a, make = operator(graph(201, 6)), MAKERS[name]
    facts, arrays = ended(make(a))
    course, rounds = make(a), 0

    while not course.round():
        course, rounds = make(a, state=course.state()), rounds + 1

    again, found = course.result()
    assert rounds > 1
    assert again == facts
    assert {k: v.tobytes() for k, v in found.items()} == {
        k: v.tobytes() for k, v in arrays.items()
    }


def test_every_algorithm_is_here() -> None:
    assert len(MAKERS) == len(graphs.__all__) + 1
