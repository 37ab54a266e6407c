"""Attention and normalisation of tokens, head by head, in float64."""

from __future__ import annotations

import numpy as np

from nnz_kernels.api.attention import (
    AttentionSpec,
    check_attention,
    check_layer_norm_planes,
)
from nnz_kernels.arrays import HostArray
from nnz_kernels.planes import Grid, token_grid


def layer_norm_planes(
    x: HostArray,
    gamma: HostArray,
    beta: HostArray,
    eps: float,
    y: HostArray,
    grid: Grid,
    channels: int,
    /,
    *,
    threads: int,
) -> None:
    check_layer_norm_planes(x, gamma, beta, y, grid, channels)
    column = (channels, 1, 1, 1)
    pixels = grid.view(x, channels).astype(np.float64)
    with np.errstate(all="ignore"):
        centred = pixels - pixels.mean(axis=0)
        result = centred / np.sqrt(np.square(centred).mean(axis=0) + eps)
        result *= gamma[:channels].reshape(column)
        result += beta[:channels].reshape(column)
    _store(result, y, grid)


def attention_planes(
    q: HostArray,
    k: HostArray,
    v: HostArray,
    mask: HostArray | None,
    out: HostArray,
    spec: AttentionSpec,
    /,
    *,
    threads: int,
) -> None:
    check_attention(q, k, v, mask, out, spec)
    asked = token_grid(spec.batch * spec.queries)
    queries = _heads(q, spec, spec.queries, spec.head_dim)
    keys = _heads(k, spec, spec.keys, spec.head_dim)
    values = _heads(v, spec, spec.keys, spec.value_dim)
    with np.errstate(all="ignore"):
        scores = spec.scale * np.einsum("hdbi,hdbj->bhij", queries, keys)
        if mask is not None:
            scores = scores + mask
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("bhij,hdbj->hdbi", weights, values)
    channels = spec.heads * spec.value_dim
    _store(mixed.reshape(channels, 1, 1, asked.w), out, asked)


def _heads(planes: HostArray, spec: AttentionSpec, tokens: int, dim: int) -> HostArray:
    """Return planes as ``[heads, dim, batch, tokens]`` in float64."""
    grid = token_grid(spec.batch * tokens)
    pixels = grid.view(planes, spec.heads * dim).astype(np.float64)
    return pixels.reshape(spec.heads, dim, spec.batch, tokens)


def _store(pixels: HostArray, y: HostArray, grid: Grid) -> None:
    """Write pixels ``[c, 1, 1, tokens]``, and zero everywhere else."""
    y[...] = 0
    grid.view(y, pixels.shape[0])[...] = pixels
