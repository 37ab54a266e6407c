"""How a product is cut: panels of pixels, groups of panels, and shares of threads."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from nnz_kernels.api.conv import Tiling
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._micro import COUNT
from nnz_kernels.cpu._simd import LANES, TALLEST, WIDTHS
from nnz_kernels.cpu.pack import Packed
from nnz_kernels.planes import Grid

#: Floats of the input that one group of panels may take, so that they stay in a cache
#: while all runs of weights pass by: packed ones in the first level, where they fill
#: whole lines, others in the second.
_PACKED_GROUP, _SPREAD_GROUP = 12 * 1024, 64 * 1024

#: Share of the longest thread in an even one, up to which pixels are shared out.
_UNEVEN = 1.1


@dataclass(frozen=True, slots=True)
class Tasks:
    """The work of one product.

    Attributes:
        tasks: One int32 row a task, with the columns that ``microkernel`` names.
        bounds: Task at which each thread starts, and the end, int64.
        share: Floats of scratch of each thread, for packed panels.
    """

    tasks: HostArray
    bounds: HostArray
    share: int


def extent(y: Grid) -> int:
    """Return the vectors from the first pixel to the last."""
    return -(-(((y.n - 1) * y.rows + y.h - 1) * y.pitch + y.w) // LANES)


@functools.lru_cache(maxsize=256)
def pixel_masks(y: Grid) -> HostArray:
    """Return int32 masks of the span: all bits where there is a pixel, else 0."""
    whole = np.zeros((y.n, y.rows, y.pitch), np.bool_)
    whole[:, : y.h, : y.w] = True
    places = whole.reshape(-1)[: extent(y) * LANES]
    masks = np.zeros(extent(y) * LANES, np.int32)
    masks[: places.size] = -places.astype(np.int32)
    return masks


def panels(total: int, widest: int) -> list[tuple[int, int]]:
    """Return (vectors, how many) of panels as even as can be, wide ones first."""
    count = -(-total // widest)
    width, wide = divmod(total, count)
    found = [(width + 1, wide), (width, count - wide)]
    return [(vectors, number) for vectors, number in found if number]


def groups(first: int, last: int, widest: int, most: int) -> list[tuple[int, int, int]]:
    """Return (first vector, vectors of a panel, panels) of groups of panels.

    Args:
        first: Where the vectors begin that are to be covered.
        last: Where they end.
        widest: Vectors of the widest panel.
        most: Panels in a group, at most.
    """
    found, at = [], first
    for vectors, number in panels(last - first, widest):
        cuts = -(-number // most)
        for a, b in itertools.pairwise(number * cut // cuts for cut in range(cuts + 1)):
            found.append((at, vectors, b - a))
            at += vectors * (b - a)
    return found


def plan_tasks(
    packed: Packed, x_start: int, y: Grid, columns: int, tiling: Tiling, threads: int
) -> Tasks:
    """Cut a product into tasks.

    Where there are enough vectors of pixels threads share these, each with all runs;
    else they share the runs, and each packs the panels for itself.

    Args:
        packed: The weights.
        x_start: Float at which the first pixel finds its tap of offset 0.
        y: Grid of the result.
        columns: Columns of the input that a run may name.
        tiling: Whether panels are packed, and narrow.
        threads: How many threads to cut for.
    """
    widest, copied = WIDTHS[packed.height], tiling != "direct"
    if tiling == "narrow":
        widest = max(1, widest // 2)
    size = columns * widest * LANES
    most = max(1, (_PACKED_GROUP if copied else _SPREAD_GROUP) // size)
    total, a_part = extent(y), len(packed.runs) // packed.chunks
    if -(-total // threads) * threads <= _UNEVEN * total:
        edges = [total * thread // threads for thread in range(threads + 1)]
        cuts = [groups(a, b, widest, most) for a, b in itertools.pairwise(edges)]
        cut, pieces = list(itertools.chain(*cuts)), [(0, a_part)]
        bounds = [0, *itertools.accumulate(map(len, cuts))]
    else:
        cut, pieces = groups(0, total, widest, most), cut_runs(packed, threads)
        bounds = [len(cut) * piece for piece in range(len(pieces) + 1)]
    end = total * LANES
    tasks = [
        (
            part + start, part + stop, x_start + at * LANES, y.lead + at * LANES,
            at * LANES, vectors, number, y.lead if at == 0 else 0,
            y.lead + end if (at + vectors * number) * LANES == end else y.ld,
        )
        for start, stop in pieces
        for at, vectors, number in cut
        for part in range(0, len(packed.runs), a_part)
    ]  # fmt: skip
    share = max(number for *_, number in cut) * size if copied else 0
    return Tasks(
        np.array(tasks, np.int32), packed.chunks * np.array(bounds, np.int64), share
    )


def chunk_columns(block: int | None) -> int:
    """Return the columns of which one packed panel leaves room in the first cache."""
    height = min(TALLEST if block is None else block, TALLEST)
    return 2 * _PACKED_GROUP // 4 // (WIDTHS[height] * LANES)


def _even(done: HostArray, parts: int) -> list[int]:
    """Return where to cut a list of works, given their running sum, into even parts."""
    goals = done[-1] * np.arange(1, parts) / parts
    cuts = [int(np.abs(done - goal).argmin()) + 1 for goal in goals]
    return sorted({0, *cuts, len(done)})


def cut_runs(packed: Packed, pieces: int) -> list[tuple[int, int]]:
    """Return (from, to) of pieces of about equal work, of the runs of one part."""
    # Starting a run costs about as much as ten of its columns.
    work = packed.runs[:, COUNT].reshape(packed.chunks, -1).sum(axis=0) + 10
    return list(itertools.pairwise(_even(np.cumsum(work), pieces)))
