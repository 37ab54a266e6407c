"""However a product is cut, all of it is done, and once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernels.network_cases import BLOCKS, random_case

from nnz_kernels.api import ConvSpec, Tiling
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._micro import COUNT, ROW, ROWS
from nnz_kernels.cpu._simd import LANES, TALLEST, WIDTHS
from nnz_kernels.cpu.microkernel import (
    LEAD,
    MASK_AT,
    PANELS,
    RUN_FROM,
    RUN_TO,
    TAIL,
    VECTORS,
    X_AT,
    Y_AT,
)
from nnz_kernels.cpu.pack import REACH, Packed, pack
from nnz_kernels.cpu.tasks import (
    Tasks,
    chunk_columns,
    cut_runs,
    extent,
    groups,
    panels,
    pixel_masks,
    plan_tasks,
)
from nnz_kernels.planes import Grid, token_grid

GRIDS = [
    Grid(1, 1, 1, 1, 1),
    Grid(1, 7, 7, 1, 1),
    Grid(3, 5, 9, 2, 1),
    Grid(1, 56, 56, 1, 1),
    Grid(2, 1, 1000, 0, 3),
    token_grid(5),
    token_grid(1027),
]


def packed(
    outputs: int, columns: int, block: int | None, reach: int = REACH, split: int = 1
) -> Packed:
    weights = random_case(60, (1, 1), (outputs, columns // split, 1, 1), 0.2)[1]
    return pack(weights, None, ConvSpec(groups=split), block, reach)


class TestPanels:
    @pytest.mark.parametrize(
        ("total", "widest", "expected"),
        [
            (1, 3, [(1, 1)]),
            (3, 3, [(3, 1)]),
            (4, 3, [(2, 2)]),
            (5, 3, [(3, 1), (2, 1)]),
            (7, 3, [(3, 1), (2, 2)]),
            (25, 8, [(7, 1), (6, 3)]),
        ],
    )
    def test_by_hand(
        self, total: int, widest: int, expected: list[tuple[int, int]]
    ) -> None:
        assert panels(total, widest) == expected

    @pytest.mark.parametrize("widest", range(1, 9))
    def test_cover_all_and_are_even(self, widest: int) -> None:
        for total in range(1, 80):
            found = panels(total, widest)

            assert sum(width * count for width, count in found) == total
            assert sum(count for _, count in found) == -(-total // widest)
            widths = [width for width, _ in found]
            assert max(widths) <= widest
            assert max(widths) - min(widths) <= 1
            assert min(count for _, count in found) > 0


class TestGroups:
    def test_by_hand(self) -> None:
        """Seven vectors by threes: panels of 3, 2 and 2; widths do not mix."""
        assert groups(0, 7, 3, 9) == [(0, 3, 1), (3, 2, 2)]
        assert groups(0, 7, 3, 1) == [(0, 3, 1), (3, 2, 1), (5, 2, 1)]
        assert groups(4, 11, 3, 9) == [(4, 3, 1), (7, 2, 2)]

    @pytest.mark.parametrize("most", [1, 2, 5, 100])
    @pytest.mark.parametrize("first", [0, 1, 5])
    @pytest.mark.parametrize("widest", [1, 3, 4, 8])
    def test_cover_all_in_order(self, widest: int, first: int, most: int) -> None:
        for last in range(first + 1, 90):
            found = groups(first, last, widest, most)

            ends = [at + width * count for at, width, count in found]
            assert [at for at, *_ in found] == [first, *ends[:-1]]
            assert ends[-1] == last
            assert all(0 < width <= widest for _, width, _ in found)
            assert all(0 < count <= most for *_, count in found)


class TestMasks:
    def test_by_hand(self) -> None:
        """Two images of 2 x 3 with a column of zeros right and a row below."""
        found = pixel_masks(Grid(2, 2, 3, 1, 1))

        row, gap = [-1, -1, -1, 0], [0, 0, 0, 0]
        assert found[:20].tolist() == [*row, *row, *gap, *row, *row]
        assert not found[20:].any()
        assert found.dtype == np.int32

    @pytest.mark.parametrize("grid", GRIDS, ids=str)
    def test_are_where_the_pixels_are(self, grid: Grid) -> None:
        places = [
            grid.offset(*place) - grid.lead
            for place in np.ndindex(grid.n, grid.h, grid.w)
        ]

        found = pixel_masks(grid)

        assert found.size == extent(grid) * LANES
        assert np.flatnonzero(found).tolist() == places
        assert (found[places] == -1).all()
        # No vector without a pixel at the end, none outside of the channel.
        assert found.size - LANES <= places[-1] < found.size
        assert grid.lead + found.size <= grid.ld


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("outputs", [1, 5, 33, 130])
@pytest.mark.parametrize("reach", [REACH, 17])
def test_cut_runs(reach: int, outputs: int, block: int | None) -> None:
    found = packed(outputs, 50, block, reach)
    a_part = len(found.runs) // found.chunks
    work = found.runs[:, COUNT].reshape(found.chunks, -1).sum(axis=0) + 10

    for pieces in range(1, 5):
        cuts = cut_runs(found, pieces)

        assert cuts[0][0] == 0
        assert cuts[-1][1] == a_part
        assert all(a[1] == b[0] for a, b in itertools.pairwise(cuts))
        assert all(start < stop for start, stop in cuts)
        assert len(cuts) <= pieces
        if a_part > 10 * pieces:
            assert len(cuts) == pieces
            parts = [work[start:stop].sum() for start, stop in cuts]
            assert max(parts) - min(parts) <= 2 * work.max()


def plan(
    found: Packed, grid: Grid, columns: int, tiling: Tiling, threads: int
) -> Tasks:
    return plan_tasks(found, 1000, grid, columns, tiling, threads)


@pytest.mark.parametrize("threads", [1, 3, 4])
@pytest.mark.parametrize("tiling", ["direct", "panel", "narrow"])
@pytest.mark.parametrize("block", [None, 1, 4, 16])
@pytest.mark.parametrize("grid", GRIDS[1:-1], ids=str)
class TestPlan:
    def test_every_pixel_of_every_run_once(
        self, grid: Grid, block: int | None, tiling: Tiling, threads: int
    ) -> None:
        for outputs, reach, split in ((1, REACH, 1), (37, REACH, 3), (40, 17, 2)):
            outputs -= outputs % split
            found = packed(outputs, 48, block, reach, split)

            tasks = plan(found, grid, 48, tiling, threads)

            done = np.zeros((len(found.runs), extent(grid)), np.int64)
            for task in tasks.tasks:
                at = (task[Y_AT] - grid.lead) // LANES
                width = task[VECTORS] * task[PANELS]
                done[task[RUN_FROM] : task[RUN_TO], at : at + width] += 1
                assert task[X_AT] - 1000 == at * LANES == task[MASK_AT]
                assert 0 < task[VECTORS] <= WIDTHS[found.height]
            assert (done == 1).all()

    def test_what_is_no_pixel_is_zeroed_once_a_part(
        self, grid: Grid, block: int | None, tiling: Tiling, threads: int
    ) -> None:
        found = packed(37, 48, block, 17)

        tasks = plan(found, grid, 48, tiling, threads)

        zeroed = np.zeros((37, grid.ld), np.int64)
        for task in tasks.tasks:
            last = found.runs[task[RUN_TO] - 1]
            rows = slice(found.runs[task[RUN_FROM], ROW], last[ROW] + last[ROWS])
            zeroed[rows, : task[LEAD]] += 1
            zeroed[rows, task[TAIL] :] += 1
        inside = slice(grid.lead, grid.lead + extent(grid) * LANES)
        assert not zeroed[:, inside].any()
        zeroed[:, inside] = found.chunks
        assert (zeroed == found.chunks).all()

    def test_parts_of_a_sum_stay_in_order_and_on_a_thread(
        self, grid: Grid, block: int | None, tiling: Tiling, threads: int
    ) -> None:
        """A sum goes on from what is stored, so another thread must not have it."""
        found = packed(40, 48, block, 17)
        a_part = len(found.runs) // found.chunks

        tasks = plan(found, grid, 48, tiling, threads)

        shared: list[HostArray] = [
            tasks.tasks[start:stop] for start, stop in itertools.pairwise(tasks.bounds)
        ]
        assert tasks.bounds[0] == 0
        assert tasks.bounds[-1] == len(tasks.tasks)
        assert 1 <= len(shared) <= threads
        for mine in shared:
            assert len(mine) > 0
            parts = [mine[part :: found.chunks] for part in range(found.chunks)]
            for number, part in enumerate(parts):
                ahead = part.copy()
                ahead[:, [RUN_FROM, RUN_TO]] -= number * a_part
                np.testing.assert_array_equal(ahead, parts[0])

    def test_scratch_holds_the_panels_of_a_group(
        self, grid: Grid, block: int | None, tiling: Tiling, threads: int
    ) -> None:
        found = packed(40, 48, block)

        tasks = plan(found, grid, 48, tiling, threads)

        floats = 48 * LANES * tasks.tasks[:, VECTORS] * tasks.tasks[:, PANELS]
        assert tasks.share >= floats.max() if tiling != "direct" else tasks.share == 0


def test_narrow_panels_are_half_as_wide() -> None:
    for block in BLOCKS:
        found = packed(40, 48, block)

        tasks = plan(found, Grid(1, 56, 56, 1, 1), 48, "narrow", 1)

        half = max(1, WIDTHS[found.height] // 2)
        assert tasks.tasks[:, VECTORS].max() == half


class TestShares:
    def test_threads_share_pixels_where_there_are_enough(self) -> None:
        found, grid = packed(40, 48, 4), Grid(1, 150, 150, 1, 1)

        tasks = plan(found, grid, 48, "panel", 4)

        assert len(tasks.bounds) == 5
        assert (tasks.tasks[:, RUN_TO] - tasks.tasks[:, RUN_FROM] == 10).all()
        work = [
            (mine[:, VECTORS] * mine[:, PANELS]).sum()
            for mine in np.split(tasks.tasks, tasks.bounds[1:-1])
        ]
        assert max(work) <= 1.1 * np.mean(work)

    def test_threads_share_runs_where_there_are_few_pixels(self) -> None:
        found, grid = packed(400, 48, 4), Grid(1, 2, 2, 1, 1)

        tasks = plan(found, grid, 48, "panel", 4)

        assert len(tasks.bounds) == 5
        assert len({int(task[RUN_FROM]) for task in tasks.tasks}) == 4

    def test_one_thread_has_all(self) -> None:
        tasks = plan(packed(40, 48, 4), Grid(1, 56, 56), 48, "panel", 1)

        assert tasks.bounds.tolist() == [0, len(tasks.tasks)]


@pytest.mark.parametrize("block", BLOCKS)
def test_chunks_fill_the_first_level_cache(block: int | None) -> None:
    """A chunk of one panel takes 12 to 24 of its 32 KB or more."""
    widest = WIDTHS[min(block or TALLEST, TALLEST)] * LANES

    assert 12 * 1024 <= 4 * widest * chunk_columns(block) <= 24 * 1024
