"""Attention and normalisation of tokens on the device."""

from __future__ import annotations

import ctypes
import functools

from nnz_kernels.api.attach import in_turn
from nnz_kernels.api.attention import (
    AttentionSpec,
    check_attention,
    check_layer_norm_planes,
)
from nnz_kernels.api.conv import check_floats
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.device import Call, blocks_of
from nnz_kernels.cuda.family import Family, attachable
from nnz_kernels.cuda.structs import Heads
from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import LINE, Grid, token_grid

#: Tokens of a block, and its warps.
_TOKENS, _WARPS = 32, 8

#: The same of a normalisation, with the threads of a token.
_NORM_TOKENS, _NORM_LANES = 8, 128

#: Largest grid along its third axis.
_MOST_HEADS = 65535


class Attention(Family):
    """What transformers do between their linear layers."""

    @attachable
    def layer_norm_planes(
        self,
        x: DeviceArray,
        gamma: DeviceArray,
        beta: DeviceArray,
        eps: float,
        y: DeviceArray,
        grid: Grid,
        channels: int,
        /,
        *,
        threads: int,
    ) -> Call:
        """Launch ``layer_norm_planes`` of attention.cu."""
        check_layer_norm_planes(x, gamma, beta, y, grid, channels, self.planes)
        domain = grid.ld + grid.lead + LINE
        return self.device.prepare(
            self.kernel("layer_norm_planes"), (blocks_of(domain, _NORM_TOKENS), 1, 1),
            (_NORM_TOKENS, _NORM_LANES, 1),
            self.plane(grid, channels), eps, gamma, beta, x, y,
        )  # fmt: skip

    @attachable
    def attention_planes(
        self,
        q: DeviceArray,
        k: DeviceArray,
        v: DeviceArray,
        mask: DeviceArray | None,
        out: DeviceArray,
        spec: AttentionSpec,
        /,
        *,
        threads: int,
    ) -> Call:
        """Launch ``attention`` of attention.cu, then write zeros between the tokens."""
        check_attention(q, k, v, mask, out, spec, self.planes)
        if spec.batch * spec.heads > _MOST_HEADS:
            raise ShapeError(
                f"{spec.batch} items of {spec.heads} heads are more than {_MOST_HEADS}"
            )
        asked = token_grid(spec.batch * spec.queries)
        channels = spec.heads * spec.value_dim
        plane = self.plane(asked, channels)
        width = 32 if spec.value_dim <= 32 else 64
        grid = (
            blocks_of(spec.queries, _TOKENS), blocks_of(spec.value_dim, width),
            spec.batch * spec.heads,
        )  # fmt: skip
        rest = blocks_of(plane.domain - plane.pixels, 256)
        border = (rest, *self.planes_grid(asked, channels)[1:])
        calls = (
            self.device.prepare(
                self.kernel("attention", width), grid, (_TOKENS, _WARPS, 1),
                plane, _heads(spec, mask), q, k, v, mask, out,
            ),
            self.device.prepare(
                self.kernel("zero_border"), border, (256, 1, 1), plane, out
            ),
        )  # fmt: skip
        return functools.partial(in_turn, calls)


def _heads(spec: AttentionSpec, mask: DeviceArray | None) -> Heads:
    asked = token_grid(spec.batch * spec.queries)
    seen = token_grid(spec.batch * spec.keys)
    strides = [0, 0, 0, 0]
    if mask is not None:
        check_floats("mask", mask)
        strides = [
            0 if size == 1 else step // mask.dtype.itemsize
            for size, step in zip(mask.shape, mask.strides, strict=True)
        ]
    return Heads(
        asked.ld, seen.ld, seen.ld, asked.lead, seen.lead, seen.lead, spec.queries,
        spec.keys, spec.heads, spec.head_dim, spec.value_dim,
        (ctypes.c_int64 * 4)(*strides), spec.scale, spec.batch,
    )  # fmt: skip
