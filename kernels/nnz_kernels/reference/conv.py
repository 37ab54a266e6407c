"""Convolutions by definition, added up in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nnz_kernels.api.conv import (
    BoundConv,
    ConvSpec,
    Tiling,
    check_bind,
    check_buffers,
    check_weights,
    is_depthwise,
    kept_weights,
)
from nnz_kernels.arrays import HostArray
from nnz_kernels.planes import Grid
from nnz_kernels.reference.pointwise import unary


@dataclass(frozen=True)
class ReferenceConv:
    """Weights and which of them count."""

    weights: HostArray
    bias: HostArray
    spec: ConvSpec
    kept: HostArray
    kernel: str
    block: int | None

    @property
    def nnz(self) -> int:
        """Weights that are multiplied."""
        return int(self.kept.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of weights and bias."""
        return self.weights.nbytes + self.bias.nbytes

    @property
    def density(self) -> float:
        """Share of the weights that is multiplied."""
        return self.nnz / self.weights.size

    def retiled(self, tiling: Tiling, /) -> ReferenceConv:
        """Return itself: no tiling differs here."""
        return self

    def bind(self, x: Grid, y: Grid, /, *, threads: int = 1) -> ReferenceBoundConv:
        """Check the grids and keep them."""
        kh, kw = self.weights.shape[2:]
        check_bind(x, y, (kh, kw), self.spec)
        return ReferenceBoundConv(self, x, y)


@dataclass(frozen=True)
class ReferenceBoundConv(BoundConv[HostArray]):
    """A convolution of two grids."""

    conv: ReferenceConv
    x: Grid
    y: Grid
    scratch: int = 0

    def attach(
        self,
        x: HostArray,
        y: HostArray,
        residual: HostArray | None,
        scratch: HostArray,
        /,
    ) -> Callable[[], None]:
        """Check the buffers and keep them for a call."""
        oc, a_group = self.conv.weights.shape[:2]
        channels = (a_group * self.conv.spec.groups, oc)
        buffers = (x, y, residual, scratch)
        check_buffers((self.x, self.y), channels, self.scratch, buffers)
        return functools.partial(self._compute, x, y, residual)

    def _compute(self, x: HostArray, y: HostArray, residual: HostArray | None) -> None:
        """Add the taps up one by one."""
        weights, groups = self.conv.weights, self.conv.spec.groups
        oc, ic = weights.shape[0], weights.shape[1] * groups
        image = self._padded(self.x.view(x, ic).astype(np.float64))
        total = np.empty((oc, self.y.n, self.y.h, self.y.w))
        for channel in range(oc):
            first = channel // (oc // groups) * weights.shape[1]
            seen = image[first : first + weights.shape[1]]
            total[channel] = self._channel(channel, seen)
        if residual is not None:
            total += self.y.view(residual, oc)
        y[...] = 0
        pixels = np.array(total.clip(*self.conv.spec.clamp), np.float32)
        if self.conv.spec.activation is not None:
            unary(self.conv.spec.activation, pixels, pixels)
        self.y.view(y, oc)[...] = pixels

    def _padded(self, image: HostArray) -> HostArray:
        top, left, bottom, right = self.conv.spec.pads
        return np.pad(image, ((0, 0), (0, 0), (top, bottom), (left, right)))

    def _channel(self, channel: int, image: HostArray) -> HostArray:
        spec, weights = self.conv.spec, self.conv.weights[channel].astype(np.float64)
        shape = (image.shape[1], self.y.h, self.y.w)
        total = np.full(shape, self.conv.bias[channel], np.float64)
        for ky, kx in np.ndindex(*weights.shape[1:]):
            top, left = ky * spec.dilations[0], kx * spec.dilations[1]
            rows = slice(
                top, top + (self.y.h - 1) * spec.strides[0] + 1, spec.strides[0]
            )
            cols = slice(
                left, left + (self.y.w - 1) * spec.strides[1] + 1, spec.strides[1]
            )
            kept = self.conv.kept[channel, :, ky, kx]
            window = image[kept][:, :, rows, cols]
            total += np.einsum("i,inyx->nyx", weights[kept, ky, kx], window)
        return total


def identity() -> str:
    return "reference"


def tilings(
    shape: tuple[int, ...], spec: ConvSpec, block: int | None, pixels: int, /
) -> tuple[Tiling, ...]:
    return ("direct",)


def prepare_conv(
    weights: HostArray,
    bias: HostArray | None,
    spec: ConvSpec,
    /,
    *,
    block: int | None,
    tiling: Tiling = "direct",
) -> ReferenceConv:
    """Keep the weights and the mask of those that count."""
    check_weights(weights, bias, spec, block)
    if bias is None:
        bias = np.zeros(weights.shape[0], np.float32)
    kernel = "dense" if block is None else f"spmm_b{block}"
    if is_depthwise(weights, spec):
        kernel, block = "depthwise", None
    kept = kept_weights(weights, spec.groups, block)
    return ReferenceConv(weights, bias, spec, kept, kernel, block)
