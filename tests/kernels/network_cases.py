"""What the tests of the network's ops share: filled planes and buffers with guards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnz_kernels import reference
from nnz_kernels.api import ConvSpec, Kernels, Tiling
from nnz_kernels.arrays import HostArray
from nnz_kernels.planes import Grid

_GUARD = 64

PLAIN = ConvSpec()
PADDED = ConvSpec(pads=(1, 1, 1, 1))

#: Every block of the sparse kernels, and the dense one.
BLOCKS = (None, 1, 2, 4, 8, 16)


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


def convolve(
    kernels: Kernels[Any],
    x: HostArray,
    weights: HostArray,
    bias: HostArray | None = None,
    spec: ConvSpec = PLAIN,
    *,
    block: int | None = None,
    tiling: Tiling = "direct",
    borders: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    residual: HostArray | None = None,
    threads: int = 1,
) -> HostArray:
    """Convolve ``[n, c, h, w]``; scratch is full of NaN."""
    n, _, h, w = x.shape
    size = spec.output_size(h, w, weights.shape[2:])
    xg, yg = Grid(n, h, w, *borders[0]), Grid(n, *size, *borders[1])
    prepared = kernels.prepare_conv(weights, bias, spec, block=block, tiling=tiling)
    conv = prepared.bind(xg, yg, threads=threads)
    scratch = np.full(conv.scratch, np.nan, np.float32)
    added = None if residual is None else planes(residual, yg)
    laid = planes(x, xg)
    return written(
        yg,
        weights.shape[0],
        lambda y: conv.run(laid, y, added, scratch),
    )


def array(values: Any, *shape: int) -> HostArray:
    """Return float32 values in a shape."""
    return np.array(values, np.float32).reshape(shape)


def random_case(
    seed: int, x: tuple[int, ...], weights: tuple[int, ...], density: float
) -> tuple[HostArray, HostArray, HostArray]:
    """Return pixels, weights of which so many are not zero, and a bias."""
    rng = np.random.default_rng(seed)
    kept = rng.random(weights) < density
    return (
        rng.standard_normal(x).astype(np.float32),
        (rng.standard_normal(weights) * kept).astype(np.float32),
        rng.standard_normal(weights[0]).astype(np.float32),
    )
