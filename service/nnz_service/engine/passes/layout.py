"""Choose the border of the planes of each image size, once for the whole model.

Images of one size then lie in one grid: elementwise operations, residuals and
concatenation need no conversion, and stride-1 convolutions read their input in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nnz_kernels.planes import Grid, token_grid
from nnz_service.engine.graph import Graph
from nnz_service.engine.shapes import Facts
from nnz_service.engine.windows import window


@dataclass(frozen=True, slots=True)
class Grids:
    """The border of every image size."""

    borders: dict[tuple[int, int], tuple[int, int]]

    def image(self, n: int, h: int, w: int) -> Grid:
        """The one grid of all images of this size."""
        return Grid(n, h, w, *self.borders.get((h, w), (0, 0)))


def choose_grids(graph: Graph, facts: Facts) -> Grids:
    """Find the largest padding that any same-size convolution needs."""
    borders: dict[tuple[int, int], tuple[int, int]] = {}
    for node in graph.nodes:
        if node.op != "Conv":
            continue
        at = window(node, facts.shape(node.inputs[0])[2:]).as_2d()
        h, w = image_size(facts.shape(node.inputs[0]))
        # A single pixel keeps no border: it is a token, see `Grid`.
        if at.strides != (1, 1) or at.sizes != (h, w) or (h, w) == (1, 1):
            continue
        top, left, bottom, right = at.pads
        bh, bw = borders.get((h, w), (0, 0))
        borders[h, w] = max(bh, top, bottom), max(bw, left, right)
    return Grids(borders)


def layer_grids(graph: Graph, facts: Facts) -> dict[str, tuple[Grid, Grid]]:
    """Return the grids of input and output of every layer, by the name of its node."""
    grids = choose_grids(graph, facts)
    found = {}
    for node in graph.nodes:
        if node.op == "Conv":
            shapes = (facts.shape(node.inputs[0]), facts.shape(node.output))
            x, y = (grids.image(shape[0], *image_size(shape)) for shape in shapes)
            found[node.name] = (x, y)
        elif node.op == "Linear":
            tokens = token_grid(math.prod(facts.shape(node.inputs[0])[:-1]))
            found[node.name] = (tokens, tokens)
    return found


def image_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of ``[n, c, h, w]`` or ``[n, c, w]``."""
    return (shape[2], shape[3]) if len(shape) == 4 else (1, shape[2])
