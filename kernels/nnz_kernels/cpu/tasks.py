"""How a product is cut: panels of pixels, pieces of weights, and their order."""

from __future__ import annotations

import itertools

import numpy as np

from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._simd import LANES, WIDTHS
from nnz_kernels.cpu.pack import Packed, cut
from nnz_kernels.cpu.stage import Source
from nnz_kernels.planes import Grid

#: Packed weights that stay in the second-level cache while panels pass by.
_RESIDENT = 128 * 1024

#: Packed weights of the smallest piece of work, in floats.
_PIECE = 8 * 1024


def extent(y: Grid) -> int:
    """Return the vectors from the first pixel to the last."""
    return -(-(((y.n - 1) * y.rows + y.h - 1) * y.pitch + y.w) // LANES)


def pixel_masks(y: Grid) -> HostArray:
    """Return for each vector of the span which lanes are pixels, as bits."""
    whole = np.zeros((y.n, y.rows, y.pitch), np.bool_)
    whole[:, : y.h, : y.w] = True
    places = whole.reshape(-1)[: extent(y) * LANES]
    flat = np.zeros(extent(y) * LANES, np.bool_)
    flat[: places.size] = places
    bits = np.zeros((extent(y), 16), np.bool_)
    bits[:, :LANES] = flat.reshape(-1, LANES)
    return np.packbits(bits, axis=1, bitorder="little").view("<u2").reshape(-1)


def panels(total: int, widest: int) -> list[tuple[int, int]]:
    """Return (first vector, vectors) of panels, as even as can be."""
    count = -(-total // widest)
    edges = [total * panel // count for panel in range(count + 1)]
    return [(a, b - a) for a, b in itertools.pairwise(edges)]


def plan_tasks(packed: Packed, source: Source, y: Grid, depthwise: bool) -> HostArray:
    """Return the work as rows of the columns that ``microkernel`` names.

    Weights that fit the cache pass by each panel of pixels in turn; of larger ones a
    piece is held while all panels pass by.
    """
    panes = panels(extent(y), WIDTHS[packed.height])
    if depthwise:
        pieces = [(run, run + 1) for run in range(len(packed.table))]
        order = [(piece, panel) for piece in pieces for panel in panes]
    elif packed.weights.size <= _RESIDENT:
        pieces = cut(packed, _PIECE)
        order = [(piece, panel) for panel in panes for piece in pieces]
    else:
        pieces = cut(packed, _RESIDENT)
        order = [(piece, panel) for piece in pieces for panel in panes]
    end = sum(panes[-1]) * LANES
    lead, ld = y.lead, y.ld
    tasks = [
        (
            *piece, source.start + at * LANES, lead + at * LANES, vectors, at,
            lead if at == 0 else 0,
            lead + end if (at + vectors) * LANES == end else ld,
        )
        for piece, (at, vectors) in order
    ]  # fmt: skip
    return np.array(tasks, np.int64)
