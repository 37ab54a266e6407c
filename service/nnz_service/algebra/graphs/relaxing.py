"""Shortest paths where weights may be negative."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.backends import load_semirings, load_sparse
from nnz_kernels.formats import Csr
from nnz_kernels.hosted import keep
from nnz_service.algebra.graphs.course import Arrays, Numbers, edges_from, number_of
from nnz_service.algebra.operator import MatrixOperator

#: Share of all edges from which on a round takes all of them, by a product.
WIDE = 0.1

#: Edges that a round looks up one by one at most.
NARROW = 500_000


class Relaxing:
    """Bellman 1958: a round relaxes the edges of the vertices that came nearer.

    Where these are many, by a product over the semiring min-plus with the transpose;
    both ways take the least of the same sums, so they have the same bits.

    Args:
        a: In float64, square; weights may be negative.
        source: Where paths begin.
        state: To go on from.
    """

    def __init__(
        self, a: MatrixOperator, source: int, state: Arrays | None = None
    ) -> None:
        self._a, self._threads = a.matrix, a.threads
        self._ops = load_sparse(a.backend)
        self._semirings = load_semirings(a.backend)
        self._turned: Csr[HostArray] | None = None
        self._status = ""
        if state is None or "front" not in state:
            self._distances = np.full(a.shape[0], np.inf)
            self._distances[source] = 0
            self._front: Numbers = np.array([source])
            self._done = 0
        else:
            self._distances = state["distances"].copy()
            self._front = state["front"].copy()
            self._done = number_of(state, "done")

    def round(self) -> bool:
        """See `Course`."""
        if self._front.size and self._done == self._distances.size:
            self._status = "unbounded"  # n rounds: a path goes over a vertex twice
            return True
        lengths = self._a.indptr[self._front + 1] - self._a.indptr[self._front]
        if lengths.sum() > min(WIDE * self._a.nnz, NARROW):
            self._take_all()
        else:
            self._take_front()
        self._done += 1
        if not self._front.size:
            self._status = "converged"
        return not self._front.size

    def progress(self) -> dict[str, Any]:
        """See `Course`."""
        reached = int(np.count_nonzero(self._distances < np.inf))
        return {"iterations": self._done, "reached": reached}

    def state(self) -> Arrays:
        """See `Course`."""
        return {
            "distances": self._distances.copy(),
            "front": self._front.copy(),
            "done": np.array(self._done),
        }

    def result(self) -> tuple[dict[str, Any], Arrays]:
        """See `Course`; infinite where no path leads.

        The status is ``unbounded`` where a cycle of negative weight can be reached.
        """
        facts = {"status": self._status} | self.progress()
        return facts, {"distances": self._distances}

    def _take_front(self) -> None:
        a, front = self._a, self._front
        edges = edges_from(a, front)
        lengths = a.indptr[front + 1] - a.indptr[front]
        ends = a.indices[edges]
        with np.errstate(over="ignore"):
            sums = np.repeat(self._distances[front], lengths) + a.data[edges]
        nearer = sums < self._distances[ends]
        np.minimum.at(self._distances, ends[nearer], sums[nearer])
        self._front = np.unique(ends[nearer])

    def _take_all(self) -> None:
        if self._turned is None:
            turned = self._ops.transpose(self._a, threads=self._threads)
            keep(self._semirings, turned.indptr, turned.indices, turned.data)
            self._turned = turned
        sums = self._semirings.semiring_spmv(
            self._turned, self._distances, "min_plus", threads=self._threads
        )
        self._front = np.flatnonzero(sums < self._distances)
        np.minimum(self._distances, sums, out=self._distances)
