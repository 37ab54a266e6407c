"""Weakly connected components."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnz_kernels.backends import load_graphs
from nnz_service.algebra.graphs.course import Arrays, number_of
from nnz_service.algebra.operator import MatrixOperator

#: Edges of a round, about.
EDGES = 1 << 20


class Components:
    """The ends of each edge are united in trees, whose ways are halved when walked.

    Tarjan and van Leeuwen 1984. Roots are the least vertices of their trees.

    Args:
        a: Square; the direction of edges does not matter.
        state: To go on from.
    """

    def __init__(self, a: MatrixOperator, state: Arrays | None = None) -> None:
        self._a, self._ops = a.matrix, load_graphs(a.backend)
        kind = self._a.indices.dtype
        roots = np.arange(a.shape[0]) if state is None else state["roots"]
        self._roots = roots.astype(kind)
        self._done = 0 if state is None else number_of(state, "done")
        self._row = 0 if state is None else number_of(state, "row")

    def round(self) -> bool:
        """See `Course`; the edges of some rows."""
        self._row = self._ops.join(self._a, self._roots, self._row, EDGES)
        self._done += 1
        return self._row >= self._roots.size

    def progress(self) -> dict[str, Any]:
        """See `Course`."""
        return {"rounds": self._done, "rows": self._row, "of": self._roots.size}

    def state(self) -> Arrays:
        """See `Course`."""
        return {
            "roots": self._roots.copy(),
            "done": np.array(self._done),
            "row": np.array(self._row),
        }

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Course`; components are numbered by their first vertices."""
        labels, count = self._ops.labels(self._roots)
        facts = {"status": "converged", "rounds": self._done, "components": count}
        return facts, {"labels": labels}
