"""What the tests of the network's ops share: filled planes and buffers with guards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnz_kernels import reference
from nnz_kernels.arrays import HostArray
from nnz_kernels.planes import Grid

_GUARD = 64


def planes(x: HostArray, grid: Grid) -> HostArray:
    """Lay ``[n, c, h, w]`` out in a fresh buffer."""
    buffer = np.empty(grid.size(x.shape[1]), np.float32)
    reference.to_planes(x.astype(np.float32), buffer, grid)
    return buffer


def pixels(buffer: HostArray, grid: Grid, channels: int) -> HostArray:
    """Return the valid pixels as ``[n, c, h, w]``, after a look at all the others."""
    rest = buffer.copy()
    out = grid.view(rest, channels).transpose(1, 0, 2, 3).copy()
    grid.view(rest, channels)[...] = 0
    assert not rest.any(), "an op left something outside of the pixels"
    return out


def written(grid: Grid, channels: int, write: Callable[[HostArray], None]) -> HostArray:
    """Return what an op writes into a buffer full of NaN, between guards of NaN."""
    size = grid.size(channels)
    memory = np.full(size + 2 * _GUARD, np.nan, np.float32)
    write(memory[_GUARD : _GUARD + size])
    assert np.isnan(memory[:_GUARD]).all(), "written before the buffer"
    assert np.isnan(memory[_GUARD + size :]).all(), "written behind the buffer"
    return pixels(memory[_GUARD : _GUARD + size], grid, channels)


def close(actual: HostArray, expected: HostArray, tolerance: float = 1e-4) -> None:
    """Compare with NaN and infinity in the same places."""
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
