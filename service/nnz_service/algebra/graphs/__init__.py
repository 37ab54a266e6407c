"""Graph algorithms on adjacency matrices, as resumable state machines.

Entry (i, j) of a square matrix is an edge from i to j, whatever its value; a stored
zero is one of weight zero.
"""

from nnz_service.algebra.graphs.components import Components
from nnz_service.algebra.graphs.pagerank import PageRank
from nnz_service.algebra.graphs.paths import Levels, shortest_paths
from nnz_service.algebra.graphs.triangles import Triangles

__all__ = ["Components", "Levels", "PageRank", "Triangles", "shortest_paths"]
