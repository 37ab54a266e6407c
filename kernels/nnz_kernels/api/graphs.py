"""Graph algorithms: steps over adjacency matrices, and what they leave for the next.

Entry (i, j) of a square matrix in canonical form is an edge from i to j. Algorithms go
by calls that each take a share of the work, so that whoever calls may stop between two
and go on elsewhere; how the work was cut changes no bit of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nnz_kernels.api.sparse import check_matrix
from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.formats import Csr

Matrix = Csr[HostArray]


@dataclass(slots=True)
class Search:
    """A breadth-first search under way.

    Args:
        levels: int64 (n,); edges from the source, -1 where nothing was met.
        queue: (n,), of the type of indices; vertices in the order they were met in.
        head: How many of the queue have been left behind.
        tail: How many there are.
    """

    levels: HostArray
    queue: HostArray
    head: int
    tail: int
    #: A bit for each vertex that was met, in words of 64: it fits a nearer cache.
    seen: HostArray = field(init=False)

    def __post_init__(self) -> None:
        bits = np.packbits(self.levels >= 0, bitorder="little")
        self.seen = np.zeros(self.levels.size // 64 + 1, np.uint64)
        self.seen.view(np.uint8)[: bits.size] = bits

    @classmethod
    def begin(cls, a: Matrix, source: int) -> Search:
        """Start at a vertex."""
        levels = np.full(a.shape[0], -1, np.int64)
        levels[source] = 0
        return cls.resume(a, levels, np.array([source]))

    @classmethod
    def resume(cls, a: Matrix, levels: HostArray, waiting: HostArray) -> Search:
        """Go on with vertices that were met, and those of them that still wait."""
        queue = np.empty(a.shape[0], a.indices.dtype)
        queue[: waiting.size] = waiting
        return cls(levels.copy(), queue, 0, waiting.size)


@dataclass(slots=True)
class Settling:
    """Shortest paths under way, along weights that are not negative.

    Args:
        distances: float64 (n,); of the best path so far, infinite where there is none.
        heap: (n,), of the type of indices; the vertices that wait are the first *size*,
            as a heap of four children by distance.
        size: How many wait.
        settled: How many have been left behind.
    """

    distances: HostArray
    heap: HostArray
    size: int
    settled: int
    #: Distances of what waits, in the heap's order, float64 (n,).
    keys: HostArray = field(init=False)
    #: Where a vertex is in the heap, (n,), if it waits.
    places: HostArray = field(init=False)

    def __post_init__(self) -> None:
        waiting = self.heap[: self.size]
        self.keys = np.empty(self.heap.size)
        self.keys[: self.size] = self.distances[waiting]
        self.places = np.zeros_like(self.heap)
        self.places[waiting] = np.arange(self.size)

    @classmethod
    def begin(cls, a: Matrix, source: int) -> Settling:
        """Start at a vertex."""
        distances = np.full(a.shape[0], np.inf)
        distances[source] = 0
        return cls.resume(a, distances, np.array([source]), 0)

    @classmethod
    def resume(
        cls, a: Matrix, distances: HostArray, waiting: HostArray, settled: int
    ) -> Settling:
        """Go on with distances, and what waits in the order of its heap."""
        heap = np.empty(a.shape[0], a.indices.dtype)
        heap[: waiting.size] = waiting
        return cls(distances.copy(), heap, waiting.size, settled)


@dataclass(frozen=True, slots=True)
class Links:
    """Who is pointed at by whom, or in whatever direction is wanted.

    Args:
        indptr: (n + 1,), row pointers.
        indices: Vertices, of the same type.
        weights: float64, of each link; None where all are one.
    """

    indptr: HostArray
    indices: HostArray
    weights: HostArray | None = None

    @property
    def vertices(self) -> int:
        """How many there are."""
        return int(self.indptr.size) - 1

    def wedges(self) -> HostArray:
        """Return how many two links in a row begin before each vertex, int64 (n + 1,).

        Links count, too: that is what `GraphOps.triangles` takes.
        """
        lengths = 1 + np.diff(self.indptr).astype(np.int64)
        return np.concatenate([[0], np.cumsum(lengths[self.indices])])[self.indptr]


class GraphOps(Protocol):
    """Steps of graph algorithms on the host; matrices are square and canonical.

    Raises, all of them: ShapeError for a matrix that is not square; DTypeError for
    types that no kernel takes. Structure is trusted.
    """

    def search(self, a: Matrix, state: Search, edges: int, /) -> bool:
        """Go on with a breadth-first search over about *edges* edges; True at its end.

        One queue: who is met is marked in *state* and waits. Values are not read.
        """
        ...

    def settle(self, a: Matrix, state: Settling, edges: int, /) -> bool:
        """Go on with shortest paths over about *edges* edges; True at their end.

        Dijkstra 1959: the nearest that waits is final, and its edges are relaxed. Data
        are float64, not negative, no NaN.
        """
        ...

    def join(self, a: Matrix, parents: HostArray, row: int, edges: int, /) -> int:
        """Unite the ends of the edges of some rows; return the first row that is left.

        Args:
            a: Directions of edges and values do not matter.
            parents: (n,), of the type of indices, at first ``arange(n)``; trees of
                vertices, whose roots are their least ones.
            row: Where to begin.
            edges: About how many to take; one row at least.
        """
        ...

    def labels(self, parents: HostArray, /) -> tuple[HostArray, int]:
        """Return the number of each vertex's tree, int64 (n,), and how many there are.

        Trees are numbered by their first vertices.
        """
        ...

    def orient(self, a: Matrix, /) -> Links:
        """Return each undirected edge once, from the end of lower degree to the higher.

        Vertices are numbered anew by degree (entries of row and column), then by their
        old numbers. Loops, directions and values do not matter. Rows are in no order.
        """
        ...

    def triangles(
        self,
        links: Links,
        wedges: HostArray,
        start: int,
        stop: int,
        /,
        *,
        threads: int | None = None,
    ) -> int:
        """Return how many triangles have their first vertex in a range.

        Args:
            links: What `orient` made.
            wedges: Its wedges, which say how much there is to do.
            start: First vertex of the range.
            stop: One behind the last.
            threads: At most.
        """
        ...

    def turn(self, a: Matrix, /) -> Links:
        """Return who points at each vertex, in ascending order; values are dropped."""
        ...

    def follow(
        self,
        links: Links,
        x: HostArray,
        shares: HostArray,
        damping: float,
        jump: float,
        /,
        *,
        threads: int | None = None,
    ) -> tuple[HostArray, float]:
        """Return the ranks after one more step, (n,), and the sum of their changes.

        ``damping * (sum of weight * shares over the links of a vertex) + jump``, added
        in stored order; the sum of changes is of sums of `BLOCK` ranks each.

        Args:
            links: Who points at each vertex.
            x: float64 (n,), ranks.
            shares: float64 (n,), what each vertex gives to a link of weight one.
            damping: See above.
            jump: See above.
            threads: At most; no bit depends on it.
        """
        ...


#: Ranks whose changes are added before others.
BLOCK = 512


def check_graph(a: Csr[Any]) -> None:
    """Refuse what is no adjacency matrix.

    Raises:
        ShapeError: It is not square.
        DTypeError: No kernel takes its types.
    """
    check_matrix(a)
    if a.shape[0] != a.shape[1]:
        raise ShapeError(f"a matrix of shape {a.shape} is no graph: not square")


def check_weights(a: Csr[Any]) -> None:
    """Refuse what is no adjacency matrix with weights in float64."""
    check_graph(a)
    if a.data.dtype != np.float64:
        raise DTypeError(f"weights are {a.data.dtype}, but must be float64")
