"""An op that is attached checks once and computes again and again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnz_kernels import cpu
from nnz_kernels.api import Kernels, PoolSpec, attach
from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import Grid, token_grid


def test_computes_from_what_the_buffers_hold_then(kernels: Kernels[Any]) -> None:
    a, b, y = (np.zeros(7, np.float32) for _ in range(3))
    call = attach(kernels.add_planes, a, b, y, -1.0, 4.0)

    for number in (1, 2, 3):
        a[:], b[:] = number, number
        call()
        np.testing.assert_array_equal(y, np.full(7, min(2 * number, 4), np.float32))


def test_keywords_go_along(kernels: Kernels[Any]) -> None:
    grid, spec = Grid(1, 4, 6), PoolSpec((2, 2), (2, 2))
    half = Grid(1, 2, 3)
    x = np.zeros(grid.size(1), np.float32)
    grid.view(x, 1)[0, 0] = np.arange(24).reshape(4, 6)
    y = np.full(half.size(1), np.nan, np.float32)

    attach(kernels.max_pool, x, grid, y, half, 1, spec, threads=1)()

    assert half.view(y, 1)[0, 0].tolist() == [[7, 9, 11], [19, 21, 23]]


@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_tokens_there_and_back(kernels: Kernels[Any], tokens: int) -> None:
    grid, rows = token_grid(tokens), np.zeros((tokens, 3), np.float32)
    planes, out = np.full(grid.size(3), np.nan, np.float32), np.zeros_like(rows)
    there = attach(kernels.to_tokens, rows, planes, grid)
    back = attach(kernels.from_tokens, planes, grid, 3, out)

    for seed in (1, 2):
        rows[:] = np.random.default_rng(seed).standard_normal(rows.shape)
        there()
        back()
        np.testing.assert_array_equal(out, rows)
        grid.view(planes, 3)[...] = 0
        assert not planes.any()


def test_faults_are_found_at_once() -> None:
    grid = token_grid(4)
    small = np.zeros(3, np.float32)

    with pytest.raises(ShapeError, match="y must be a flat buffer"):
        attach(cpu.to_tokens, np.zeros((4, 2), np.float32), small, grid)


@pytest.mark.parametrize("place", [0, 1])
def test_what_would_be_copied_is_refused(kernels: Kernels[Any], place: int) -> None:
    """Else the call would go on with what lay there when it was attached."""
    crooked = np.zeros(80, np.uint8)[1:65].view(np.float32)
    for wrong in (np.zeros(32, np.float32)[::2], crooked):
        given = [np.zeros(16, np.float32) for _ in range(3)]
        given[place] = wrong

        with pytest.raises(ShapeError, match=f"argument {place} must be aligned"):
            attach(kernels.add_planes, *given, -1.0, 1.0)
