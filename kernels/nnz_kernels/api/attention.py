"""Attention and normalisation of tokens: planes of features x tokens in and out."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from nnz_kernels.api.conv import check_buffer
from nnz_kernels.arrays import AnyArray
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.planes import Grid, token_grid

Array_contra = TypeVar("Array_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Sizes of an attention of several heads over a batch of items.

    Attributes:
        batch: Items; each looks at its own keys alone.
        queries: Tokens of an item that ask, and that the result has.
        keys: Tokens of an item that are looked at; each has a value.
        heads: Equal runs of features that do not see each other.
        head_dim: Features of a query and of a key in a head.
        value_dim: Features of a value in a head.
        scale: What the products of queries and keys are multiplied by.
    """

    batch: int
    queries: int
    keys: int
    heads: int
    head_dim: int
    value_dim: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse sizes that no attention has."""
        sizes = (self.batch, self.queries, self.keys, self.heads, self.head_dim)
        if min(*sizes, self.value_dim) < 1 or not math.isfinite(self.scale):
            raise ShapeError(f"sizes must be >= 1 and the scale finite, got {self}")

    @property
    def scores(self) -> tuple[int, int, int, int]:
        """Shape of the products of queries and keys, to which a mask is broadcast."""
        return (self.batch, self.heads, self.queries, self.keys)


def check_attention(
    q: AnyArray,
    k: AnyArray,
    v: AnyArray,
    mask: AnyArray | None,
    out: AnyArray,
    spec: AttentionSpec,
    dtype: npt.DTypeLike = np.float32,
) -> None:
    """Check what ``attention_planes`` is given; planes are of type *dtype*.

    Raises:
        ShapeError: A buffer is too short, or the mask does not broadcast to the scores.
        DTypeError: One is not float32.
    """
    parts = zip(("q", "k", "v", "out"), (q, k, v, out), _floats(spec), strict=True)
    for name, buffer, floats in parts:
        check_buffer(name, buffer, floats, dtype)
    if mask is None:
        return
    if mask.dtype != np.float32:
        raise DTypeError(f"mask must be float32, got {mask.dtype}")
    fits = mask.ndim == 4 and all(
        size in (1, wanted)
        for size, wanted in zip(mask.shape, spec.scores, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"mask must have the four axes {spec.scores} or 1, got {mask.shape}"
        )


@functools.lru_cache(maxsize=256)
def _floats(spec: AttentionSpec) -> tuple[int, int, int, int]:
    """Return the floats of q, k, v and the result."""
    asked = token_grid(spec.batch * spec.queries)
    seen = token_grid(spec.batch * spec.keys)
    wide, narrow = spec.heads * spec.head_dim, spec.heads * spec.value_dim
    return asked.size(wide), seen.size(wide), seen.size(narrow), asked.size(narrow)


@functools.lru_cache(maxsize=256)
def _planes(grid: Grid, channels: int) -> int:
    return grid.size(channels)


def check_layer_norm_planes(
    x: AnyArray,
    gamma: AnyArray,
    beta: AnyArray,
    y: AnyArray,
    grid: Grid,
    count: int,
    dtype: npt.DTypeLike = np.float32,
) -> None:
    """Check what ``layer_norm_planes`` is given; planes are of type *dtype*.

    Raises:
        ShapeError: A buffer is too short, there is no channel, or the grid has borders
            or rows.
        DTypeError: One is not float32.
    """
    if (grid.n, grid.h, grid.bh, grid.bw) != (1, 1, 0, 0) or count < 1:
        raise ShapeError(f"planes of tokens are needed, got {count} channels of {grid}")
    floats = _planes(grid, count)
    check_buffer("x", x, floats, dtype)
    check_buffer("gamma", gamma, count)
    check_buffer("beta", beta, count)
    check_buffer("y", y, floats, dtype)


class AttentionOps(Protocol[Array_contra]):
    """What transformers do between their linear layers; buffers are flat float32.

    Every op writes all of its result, zeros where there is no token. NaN and infinity
    go where they would in the plain formula.
    """

    def layer_norm_planes(
        self,
        x: Array_contra,
        gamma: Array_contra,
        beta: Array_contra,
        eps: float,
        y: Array_contra,
        grid: Grid,
        channels: int,
        /,
        *,
        threads: int,
    ) -> None:
        """Write ``y = (x - mean) / sqrt(variance + eps) * gamma + beta``.

        Mean and (biased) variance, taken around the mean, are over the channels of each
        token.

        Args:
            x: Planes on ``grid``.
            gamma: ``(channels,)``.
            beta: ``(channels,)``.
            eps: Added to the variance.
            y: Planes on ``grid``; may be ``x``.
            grid: A ``token_grid``.
            channels: At least one.
            threads: Threads to compute with.

        Raises:
            ShapeError: A buffer is too short, or the grid has borders or rows.
        """
        ...

    def attention_planes(
        self,
        q: Array_contra,
        k: Array_contra,
        v: Array_contra,
        mask: Array_contra | None,
        out: Array_contra,
        spec: AttentionSpec,
        /,
        *,
        threads: int,
    ) -> None:
        """Write ``softmax(scale * q k^T + mask) v`` for every item and head.

        This is scaled dot-product attention (Vaswani et al., "Attention is all you
        need", 2017). The tokens of item b are the columns ``b * T .. b * T + T - 1`` of
        each plane, head h has the channels ``h * d .. h * d + d - 1``.

        Args:
            q: Planes of ``heads * head_dim`` channels on a ``token_grid`` of ``batch *
                queries`` tokens.
            k: The same for ``batch * keys`` tokens.
            v: Planes of ``heads * value_dim`` channels for ``batch * keys`` tokens.
            mask: Added to the scores: four axes, each that of ``spec.scores`` or 1, in
                C order; or None.
            out: Planes of ``heads * value_dim`` channels for ``batch * queries``
                tokens; must not overlap the inputs.
            spec: Sizes and scale.
            threads: Threads to compute with.

        Raises:
            ShapeError: A buffer is too short or the mask does not fit.
            DTypeError: A buffer or the mask is not float32.
        """
        ...
