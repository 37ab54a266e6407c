"""The number of triangles of an undirected graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnz_kernels.backends import load_graphs
from nnz_service.algebra.graphs.course import Arrays, number_of
from nnz_service.algebra.operator import MatrixOperator

#: Pairs of links of a round, about.
PART = 4_000_000


class Triangles:
    """Neighbours of neighbours that are neighbours, edges going up by degree.

    Chiba and Nishizeki 1985; Latapy 2008. Each triangle is found once, at
    its vertex of least degree, and long rows have few links. Directions, weights and
    loops do not matter. A round takes a run of vertices.

    Args:
        a: Square.
        state: To go on from.
    """

    def __init__(self, a: MatrixOperator, state: Arrays | None = None) -> None:
        self._ops, self._threads = load_graphs(a.backend), a.threads
        self._links = self._ops.orient(a.matrix)
        self._wedges = self._links.wedges()
        fresh = state is None or "row" not in state
        self._row = 0 if state is None or fresh else number_of(state, "row")
        self._count = 0 if state is None or fresh else number_of(state, "count")

    def round(self) -> bool:
        """See `Course`."""
        most = self._wedges[self._row] + PART
        stop = int(np.searchsorted(self._wedges, most, side="right")) - 1
        stop = min(max(stop, self._row + 1), self._links.vertices)
        self._count += self._ops.triangles(
            self._links, self._wedges, self._row, stop, threads=self._threads
        )
        self._row = stop
        return self._row >= self._links.vertices

    def progress(self) -> dict[str, Any]:
        """See `Course`."""
        vertices = self._links.vertices
        return {"rows": self._row, "of": vertices, "triangles": self._count}

    def state(self) -> Arrays:
        """See `Course`."""
        return {"row": np.array(self._row), "count": np.array(self._count)}

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Course`; there is no array."""
        return {"status": "converged", "triangles": self._count}, {}
