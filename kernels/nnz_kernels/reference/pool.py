"""Pooling by definition."""

from __future__ import annotations

import numpy as np

from nnz_kernels.api.conv import check_buffer
from nnz_kernels.api.pool import PoolSpec, check_global_pool, check_pool
from nnz_kernels.arrays import HostArray
from nnz_kernels.planes import Grid


def max_pool(
    x: HostArray,
    xg: Grid,
    y: HostArray,
    yg: Grid,
    channels: int,
    spec: PoolSpec,
    /,
    *,
    threads: int,
) -> None:
    image = _image(x, xg, y, yg, channels, spec)
    windows = _windows(image, yg, spec, -np.inf, -np.inf)
    y[...] = 0
    yg.view(y, channels)[...] = windows.max(axis=0)


def average_pool(
    x: HostArray,
    xg: Grid,
    y: HostArray,
    yg: Grid,
    channels: int,
    spec: PoolSpec,
    /,
    *,
    threads: int,
) -> None:
    image = _image(x, xg, y, yg, channels, spec)
    pad_counts = 1.0 if spec.count_include_pad else 0.0
    counts = _windows(np.ones_like(image), yg, spec, pad_counts, 0.0).sum(axis=0)
    total = _windows(image, yg, spec, 0.0, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        mean = total / counts
    y[...] = 0
    yg.view(y, channels)[...] = mean


def global_average_pool(
    x: HostArray,
    xg: Grid,
    y: HostArray,
    yg: Grid,
    channels: int,
    /,
    *,
    threads: int,
) -> None:
    check_global_pool(xg, yg)
    check_buffer("x", x, xg.size(channels))
    check_buffer("y", y, yg.size(channels))
    mean = xg.view(x, channels).astype(np.float64).mean(axis=(2, 3))
    y[...] = 0
    out = yg.view(y, channels)
    out[...] = mean.reshape(out.shape)


def _image(
    x: HostArray, xg: Grid, y: HostArray, yg: Grid, channels: int, spec: PoolSpec
) -> HostArray:
    check_pool(xg, yg, spec)
    check_buffer("x", x, xg.size(channels))
    check_buffer("y", y, yg.size(channels))
    image: HostArray = xg.view(x, channels).astype(np.float64)
    return image


def _windows(
    image: HostArray, yg: Grid, spec: PoolSpec, pad: float, beyond: float
) -> HostArray:
    """Return ``[tap, c, n, y, x]``: every place that each window covers."""
    top, left, bottom, right = spec.pads
    (kh, kw), (sh, sw), (dh, dw) = spec.kernel, spec.strides, spec.dilations
    outside = ((0, 0), (0, 0), (top, bottom), (left, right))
    padded = np.pad(image, outside, constant_values=pad)
    reach_h, reach_w = (yg.h - 1) * sh + 1, (yg.w - 1) * sw + 1
    more_h = max(0, (kh - 1) * dh + reach_h - padded.shape[2])
    more_w = max(0, (kw - 1) * dw + reach_w - padded.shape[3])
    outside = ((0, 0), (0, 0), (0, more_h), (0, more_w))
    padded = np.pad(padded, outside, constant_values=beyond)
    taps = []
    for ky, kx in np.ndindex(kh, kw):
        rows = slice(ky * dh, ky * dh + reach_h, sh)
        taps.append(padded[:, :, rows, kx * dw : kx * dw + reach_w : sw])
    return np.stack(taps)
