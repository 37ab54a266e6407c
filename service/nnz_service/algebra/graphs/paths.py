"""Distances from one vertex: in edges, and in weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnz_kernels.api.graphs import Search, Settling
from nnz_kernels.backends import load_graphs
from nnz_service.algebra.graphs.course import Arrays, Course, number_of
from nnz_service.algebra.graphs.relaxing import Relaxing
from nnz_service.algebra.operator import MatrixOperator

#: Edges of a round, about.
EDGES = 1 << 20


class Levels:
    """Breadth-first search, with one queue; a round goes over so many edges.

    Args:
        a: Square.
        source: Where it begins.
        state: To go on from.
    """

    def __init__(
        self, a: MatrixOperator, source: int, state: Arrays | None = None
    ) -> None:
        self._a, self._ops = a.matrix, load_graphs(a.backend)
        if state is None or "queue" not in state:
            self._search = Search.begin(self._a, source)
        else:
            self._search = Search.resume(self._a, state["levels"], state["queue"])

    def round(self) -> bool:
        """See `Course`."""
        return self._ops.search(self._a, self._search, EDGES)

    def progress(self) -> dict[str, Any]:
        """See `Course`."""
        levels = self._search.levels
        reached = int(np.count_nonzero(levels >= 0))
        return {"depth": int(levels.max()), "reached": reached}

    def state(self) -> Arrays:
        """See `Course`."""
        found = self._search
        waiting = found.queue[found.head : found.tail]
        return {"levels": found.levels.copy(), "queue": waiting.copy()}

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Course`; -1 where no path leads."""
        facts = {"status": "converged"} | self.progress()
        return facts, {"levels": self._search.levels}


class Nearest:
    """Dijkstra 1959, for weights that are not negative; a round takes so many edges.

    Args:
        a: In float64, square.
        source: Where paths begin.
        state: To go on from.
    """

    def __init__(
        self, a: MatrixOperator, source: int, state: Arrays | None = None
    ) -> None:
        self._a, self._ops = a.matrix, load_graphs(a.backend)
        if state is None or "heap" not in state:
            self._paths = Settling.begin(self._a, source)
        else:
            distances, heap = state["distances"], state["heap"]
            settled = number_of(state, "settled")
            self._paths = Settling.resume(self._a, distances, heap, settled)

    def round(self) -> bool:
        """See `Course`."""
        return self._ops.settle(self._a, self._paths, EDGES)

    def progress(self) -> dict[str, Any]:
        """See `Course`; iterations are vertices whose distances are final."""
        reached = int(np.count_nonzero(self._paths.distances < np.inf))
        return {"iterations": self._paths.settled, "reached": reached}

    def state(self) -> Arrays:
        """See `Course`."""
        found = self._paths
        return {
            "distances": found.distances.copy(),
            "heap": found.heap[: found.size].copy(),
            "settled": np.array(found.settled),
        }

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Course`; infinite where no path leads."""
        facts = {"status": "converged"} | self.progress()
        return facts, {"distances": self._paths.distances}


def shortest_paths(
    a: MatrixOperator, source: int, state: Arrays | None = None
) -> Course:
    """Return what finds the distances from a vertex: by `Nearest` if it may.

    Both find the least of the same sums, so they would give the same bits.

    Args:
        a: In float64, square; weights may be negative.
        source: Where paths begin.
        state: To go on from.
    """
    if a.matrix.data.min(initial=0) < 0:
        return Relaxing(a, source, state)
    return Nearest(a, source, state)
