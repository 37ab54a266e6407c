from __future__ import annotations

import numpy as np
import pytest

from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import Grid, round_up, token_grid

GRIDS = [
    pytest.param(Grid(1, 1, 1), id="one"),
    pytest.param(Grid(1, 7, 7, 1, 1), id="7x7"),
    pytest.param(Grid(3, 13, 5, 2, 1), id="batch"),
    pytest.param(Grid(2, 5, 3, 0, 3), id="columns only"),
    pytest.param(token_grid(20), id="tokens"),
]


class TestGrid:
    def test_by_hand(self) -> None:
        grid = Grid(n=2, h=3, w=4, bh=1, bw=2)

        assert (grid.pitch, grid.rows, grid.pixels) == (6, 4, 24)
        assert grid.lead == 16  # 1 * 6 + 2, rounded up
        assert grid.span == 48  # 2 * 4 * 6
        assert grid.ld == 64  # 16 + 48, few enough lines to be even
        assert grid.offset(1, 2, 3) == 16 + (4 + 2) * 6 + 3
        assert grid.size(3) == 3 * 64 + 16 + 16  # and the zeros behind the last row

    @pytest.mark.parametrize("grid", GRIDS)
    def test_every_tap_stays_inside(self, grid: Grid) -> None:
        """Taps of border width read zeros: of their channel or the lead of the next."""
        reach = grid.bh * grid.pitch + grid.bw

        assert grid.lead >= reach
        assert grid.lead + grid.span + reach <= grid.ld + grid.lead
        assert grid.size(1) >= grid.ld + reach + 16

    @pytest.mark.parametrize("grid", GRIDS)
    def test_ld_is_the_smallest_odd_number_of_lines_or_few(self, grid: Grid) -> None:
        needed = grid.lead + grid.span

        assert grid.ld // 16 % 2 == 1 or grid.ld // 16 <= 4
        assert needed <= grid.ld < needed + 32
        assert grid.lead % 16 == grid.span % 16 == grid.ld % 16 == 0

    @pytest.mark.parametrize("grid", GRIDS)
    def test_view_and_offset_agree(self, grid: Grid) -> None:
        buffer = np.arange(grid.size(3), dtype=np.float32)

        view = grid.view(buffer, 3)

        assert view.shape == (3, grid.n, grid.h, grid.w)
        for c, n, y, x in np.ndindex(*view.shape):
            assert view[c, n, y, x] == c * grid.ld + grid.offset(n, y, x)

    def test_view_writes_into_the_buffer(self) -> None:
        grid = Grid(1, 2, 2, 1, 1)
        buffer = np.zeros(grid.size(1), np.float32)

        grid.view(buffer, 1)[...] = 1

        assert buffer.sum() == 4

    def test_view_refuses_a_short_buffer(self) -> None:
        grid = Grid(1, 2, 2)

        with pytest.raises(ShapeError, match=r"2 planes of .* need a flat buffer"):
            grid.view(np.zeros(grid.size(2) - 1, np.float32), 2)

    @pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1, -1)])
    def test_refuses_sizes_that_no_tensor_has(self, sizes: tuple[int, ...]) -> None:
        with pytest.raises(ShapeError, match="n, h, w >= 1"):
            Grid(*sizes)


@pytest.mark.parametrize(("value", "result"), [(0, 0), (1, 16), (16, 16), (17, 32)])
def test_round_up(value: int, result: int) -> None:
    assert round_up(value, 16) == result
