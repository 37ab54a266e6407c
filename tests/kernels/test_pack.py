"""What packed weights look like, on matrices small enough to read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.network_cases import BLOCKS, PLAIN, array, close, random_case
from kernels.network_cases import convolve as run

from nnz_kernels import cpu
from nnz_kernels.api import ConvSpec
from nnz_kernels.api.conv import kept_weights
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu._micro import (
    BASE,
    CONTINUED,
    COUNT,
    PART,
    ROW,
    ROWS,
    TAP,
    UNFINISHED,
    WEIGHT,
)
from nnz_kernels.cpu._simd import TALLEST
from nnz_kernels.cpu.pack import REACH, Packed, pack


def packed(rows: Any, block: int | None, **options: Any) -> Packed:
    """Pack a matrix of output rows x input columns."""
    weights = np.array(rows, np.float32)[:, :, None, None]
    groups = options.pop("groups", 1)
    bias = options.pop("bias", None)
    return pack(weights, bias, ConvSpec(groups=groups), block, **options)


def table(found: Packed) -> list[dict[str, int]]:
    """The runs by the names of their columns, without what is zero."""
    names = ("row", "rows", "tap", "count", "weight", "base", "part")
    places = (ROW, ROWS, TAP, COUNT, WEIGHT, BASE, PART)
    return [
        {name: int(run[at]) for name, at in zip(names, places, strict=True) if run[at]}
        for run in found.runs
    ]


def unpacked(found: Packed, shape: tuple[int, ...], groups: int) -> HostArray:
    """Multiply out: the dense matrix, block diagonal over the groups."""
    outputs, columns = shape[0], int(np.prod(shape[1:]))
    dense = np.zeros((outputs, columns * groups), np.float32)
    for row, rows, tap, count, weight, base, _ in found.runs.tolist():
        taps = base + found.columns[tap : tap + count].astype(np.int64)
        values = found.weights[weight : weight + count * found.height]
        block = values.reshape(count, found.height).T
        assert not block[rows:].any(), "a row beyond the last has weights"
        assert (np.diff(taps) > 0).all(), "columns do not ascend"
        dense[row : row + rows, taps] += block[:rows]
    return dense


class TestByHand:
    def test_single_weights(self) -> None:
        """Every row is a run of its own; the second has no column."""
        found = packed([[0, 5, 0, 7], [0, 0, 0, 0], [9, 0, 0, 0]], 1)

        assert found.height == 1
        assert table(found) == [
            {"rows": 1, "count": 2},
            {"row": 1, "rows": 1, "tap": 2, "weight": 2},
            {"row": 2, "rows": 1, "tap": 2, "count": 1, "weight": 2},
        ]
        assert found.columns.tolist() == [1, 3, 0]
        assert found.columns.dtype == np.uint16
        assert found.runs.dtype == np.int32
        assert found.weights.tolist() == [5, 7, 9]
        assert (found.nnz, found.chunks) == (3, 1)

    def test_pairs_with_a_partial_last_one(self) -> None:
        """Weights go column by column; the row that is not there has zeros."""
        found = packed([[1, 0, 2], [3, 0, 0], [0, 4, 5]], 2, bias=array([7, 8, 9], 3))

        assert found.height == 2
        assert table(found) == [
            {"rows": 2, "count": 2},
            {"row": 2, "rows": 1, "tap": 2, "count": 2, "weight": 4},
        ]
        assert found.columns.tolist() == [0, 2, 1, 2]
        assert found.weights.tolist() == [1, 3, 2, 0, 4, 0, 5, 0]
        assert found.bias.tolist() == [7, 8, 9, 0]
        assert found.nnz == 4 + 2

    def test_dense_runs_share_one_list_of_columns(self) -> None:
        """Zeros are kept, and the columns are named once."""
        found = packed(np.eye(TALLEST + 1, 3), None)

        assert found.height == TALLEST
        assert table(found) == [
            {"rows": TALLEST, "count": 3},
            {"row": TALLEST, "rows": 1, "count": 3, "weight": 3 * TALLEST},
        ]
        assert found.columns.tolist() == [0, 1, 2]
        assert found.nnz == 3 * (TALLEST + 1)

    def test_blocks_wider_than_a_tile(self) -> None:
        """They are several runs, of the same columns; weights go tile by tile."""
        rows = np.arange(1, 2 * TALLEST + 1)[:, None] * np.array([[1, 0, 100]])
        found = packed(rows, 2 * TALLEST)

        assert found.height == TALLEST
        assert table(found) == [
            {"rows": TALLEST, "count": 2},
            {"row": TALLEST, "rows": TALLEST, "count": 2, "weight": 2 * TALLEST},
        ]
        assert found.columns.tolist() == [0, 2]
        first = np.arange(1, TALLEST + 1)
        expected = [first, 100 * first, first + TALLEST, 100 * (first + TALLEST)]
        assert found.weights.tolist() == np.concatenate(expected).tolist()

    def test_tiles_that_would_be_empty_are_left_out(self) -> None:
        """One block of 16 holds the five rows, in as many tiles as they need."""
        found = packed(np.ones((5, 2)), 16)

        assert sum(run["rows"] for run in table(found)) == 5
        assert all(run["rows"] > 0 for run in table(found))
        assert len(found.runs) == -(-5 // found.height)
        assert found.nnz == 10

    def test_blocks_no_wider_than_the_layer_needs(self) -> None:
        found = packed(np.ones((3, 2)), 16)

        assert found.height == 4
        assert table(found) == [{"rows": 3, "count": 2}]
        assert found.weights.tolist() == 2 * [1, 1, 1, 0]

    def test_groups(self) -> None:
        """Blocks start anew in each group; columns count from its first."""
        rows = [[1, 0], [2, 0], [3, 0], [0, 4], [0, 5], [0, 6]]

        found = packed(rows, 2, groups=2, bias=array(range(1, 7), 6))

        assert table(found) == [
            {"rows": 2, "count": 1},
            {"row": 2, "rows": 1, "tap": 1, "count": 1, "weight": 2},
            {"row": 3, "rows": 2, "tap": 2, "count": 1, "weight": 4, "base": 2},
            {"row": 5, "rows": 1, "tap": 3, "count": 1, "weight": 6, "base": 2},
        ]
        assert found.columns.tolist() == [0, 0, 1, 1]
        assert found.weights.tolist() == [1, 2, 3, 0, 4, 5, 6, 0]
        assert found.bias.tolist() == [1, 2, 3, 0, 4, 5, 6, 0]

    def test_parts(self) -> None:
        """Columns beyond the reach are another part of the same sums."""
        rows = [[1, 0, 2, 3, 4], [0, 5, 0, 0, 6]]

        found = packed(rows, 1, reach=2, bias=array([8, 9], 2))

        assert found.chunks == 3
        middle = UNFINISHED | CONTINUED
        assert table(found) == [
            {"rows": 1, "count": 1, "part": UNFINISHED},
            {
                "row": 1, "rows": 1, "tap": 1, "count": 1, "weight": 1,
                "part": UNFINISHED,
            },
            {
                "rows": 1, "tap": 2, "count": 2, "weight": 2, "base": 2, "part": middle,
            },
            {"row": 1, "rows": 1, "tap": 4, "weight": 4, "base": 2, "part": middle},
            {
                "rows": 1, "tap": 4, "count": 1, "weight": 4, "base": 4,
                "part": CONTINUED,
            },
            {
                "row": 1, "rows": 1, "tap": 5, "count": 1, "weight": 5, "base": 4,
                "part": CONTINUED,
            },
        ]  # fmt: skip
        assert found.columns.tolist() == [0, 1, 0, 1, 0, 0]
        assert found.weights.tolist() == [1, 5, 2, 3, 4, 6]
        assert found.bias.tolist() == [8, 9, 0, 0, 0, 0]

    def test_columns_go_channel_by_channel(self) -> None:
        weights = np.zeros((1, 2, 3, 3), np.float32)
        weights[0, 0, 2, 1], weights[0, 1, 0, 2] = 1, 2

        found = pack(weights, None, PLAIN, 1)

        assert found.columns.tolist() == [7, 9 + 2]
        assert found.weights.tolist() == [1, 2]


@pytest.mark.parametrize("reach", [REACH, 7, 1])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("groups", "outputs", "kernel"), [(1, 13, 1), (1, 37, 3), (3, 15, 3), (2, 34, 1)]
)
def test_nothing_is_lost_or_invented(
    groups: int, outputs: int, kernel: int, block: int | None, reach: int
) -> None:
    shape = (outputs, 5, kernel, kernel)
    _, weights, bias = random_case(30, (1, 1), shape, 0.3)
    weights[1 : outputs // 2 : 3] = 0

    found = pack(weights, bias, ConvSpec(groups=groups), block, reach)

    dense = unpacked(found, shape, groups)
    size, a_group = 5 * kernel**2, outputs // groups
    for row in range(outputs):
        start = row // a_group * size
        np.testing.assert_array_equal(
            dense[row, start : start + size], weights[row].ravel()
        )
        dense[row, start : start + size] = 0
    assert not dense.any()
    assert found.nnz == kept_weights(weights, groups, block).sum()
    first = found.runs[:, PART] & CONTINUED == 0
    held = found.bias.reshape(-1, found.height)
    assert not held[~first].any()
    real = np.arange(found.height) < found.runs[first, ROWS, None]
    assert held[first][real].tolist() == bias.tolist()
    assert not held[first][~real].any()


@pytest.mark.parametrize("block", [1, 2, 4, 8, 16])
def test_all_zeros(block: int) -> None:
    """Runs without columns are still there: they write the bias."""
    found = packed(np.zeros((5, 9)), block, bias=array(range(5), 5))

    assert found.runs[:, COUNT].sum() == found.columns.size == found.weights.size == 0
    assert found.runs[:, ROWS].sum() == 5
    assert found.nnz == 0


class TestBytes:
    @pytest.mark.parametrize(("block", "most"), [(1, 0.17), (4, 0.13), (16, 0.115)])
    def test_at_ninety_percent_zeros(self, block: int, most: float) -> None:
        """A weight takes 4 bytes, a column 2, a run 28 and its biases."""
        rng = np.random.default_rng(31)
        kept = rng.random((512 // block, 512)) < 0.1
        weights = (kept + 0).repeat(block, axis=0)[:, :, None, None]
        weights = weights.astype(np.float32)

        conv = cpu.prepare_conv(weights, np.ones(512, "f4"), PLAIN, block=block)

        assert conv.nbytes <= most * weights.nbytes
        assert conv.nbytes >= 4 * np.count_nonzero(weights)

    def test_dense(self) -> None:
        weights = np.ones((512, 512, 1, 1), np.float32)

        conv = cpu.prepare_conv(weights, None, PLAIN, block=None)

        assert weights.nbytes <= conv.nbytes <= 1.02 * weights.nbytes


class TestManyColumns:
    """More columns than 16 bits can name are several parts."""

    @pytest.mark.parametrize("tiling", ["direct", "panel", "narrow", "chunk"])
    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("pixels", [2, 9])
    def test_one_by_one(self, pixels: int, block: int | None, tiling: Any) -> None:
        x, weights, bias = random_case(
            32, (1, 70_000, 1, pixels), (3, 70_000, 1, 1), 0.01
        )
        residual = random_case(33, (1, 3, 1, pixels), (1, 1), 1)[0]

        y = run(cpu, x, weights, bias, block=block, tiling=tiling, residual=residual)

        product = weights[:, :, 0, 0].astype(np.float64) @ x[0, :, 0]
        close(y[0, :, 0], product + bias[:, None] + residual[0, :, 0], 1e-3)

    @pytest.mark.parametrize("block", [None, 1, 4])
    def test_in_a_group(self, block: int | None) -> None:
        """The second group starts in the middle of what a part can name."""
        shape = (4, 40_000, 1, 2)
        x, weights, _ = random_case(34, (1, 80_000, 1, 7), shape, 0.01)

        y = run(cpu, x, weights, None, ConvSpec(groups=2), block=block)

        for row in range(4):
            seen = x[0, row // 2 * 40_000 :][:40_000, 0].astype(np.float64)
            one, two = weights[row, :, 0].T.astype(np.float64)
            close(y[0, row, 0], one @ seen[:, :-1] + two @ seen[:, 1:], 1e-3)

    def test_parts_are_cut_where_a_column_no_longer_fits(self) -> None:
        rows = np.zeros((1, REACH + 2))
        rows[0, [REACH - 1, REACH]] = 1, 2

        found = packed(rows, 1)

        assert found.chunks == 2
        assert found.columns.tolist() == [REACH - 1, 0]
        assert found.runs[:, BASE].tolist() == [0, REACH]
