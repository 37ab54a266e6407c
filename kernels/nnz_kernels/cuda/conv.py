"""Convolutions and linear layers on the device: which kernels, and packed weights."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np

from nnz_kernels.api.conv import (
    BoundConv,
    ConvSpec,
    Tiling,
    check_weights,
    is_depthwise,
)
from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda import registry
from nnz_kernels.cuda.array import DeviceArray
from nnz_kernels.cuda.bound_conv import DENSE, DEPTHWISE, SPARSE, WARPS, CudaBoundConv
from nnz_kernels.cuda.family import Family
from nnz_kernels.cuda.pack import (
    Packed,
    as_elements,
    pack_bitmap,
    pack_blocks,
    pack_columns,
    pack_dense_fragments,
    pack_depthwise,
    pack_fragments,
    pack_rows,
)
from nnz_kernels.cuda.source import module_source
from nnz_kernels.planes import Grid

#: Warps a multiprocessor should have to hide the time that memory takes.
RESIDENT = 16


class Convolutions(Family):
    """Convolutions of planes."""

    def identity(self) -> str:
        """Return a name of device and kernels."""
        text = "".join(map(module_source, registry.MODULES))
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        name = self.device.launcher.name.replace(" ", "-").replace("/", "-")
        return f"cuda-{name}-{self.precision}-{digest}"

    def tilings(
        self, shape: tuple[int, ...], spec: ConvSpec, block: int | None, pixels: int, /
    ) -> tuple[Tiling, ...]:
        """Return all tilings, first the widest that fills the device."""
        if spec.groups > 1 and shape[1] == 1:
            return tuple(DEPTHWISE)
        library = self._library(shape, spec, block)
        if self.precision != "fp32" and block is None:
            return ("direct", *library)
        if self.precision != "fp32" and block in registry.MMA_BLOCKS:
            return ("direct", "panel", "narrow", "chunk")
        if self.precision != "fp32" and block == 1:
            return ("bitmap", "direct", "panel", "narrow", "chunk")
        enough = RESIDENT * self.device.launcher.processors
        if block is None:
            tiles = math.ceil(shape[0] / 64) * math.ceil(pixels / 64)
            first: Tiling = "direct" if WARPS * tiles >= enough else "chunk"
            return (first, *(t for t in DENSE if t != first), *library)
        wide = registry.BLOCK_WIDTHS[block][-1]
        rows, lanes = math.ceil(shape[0] / block), math.ceil(pixels / 32)
        order: tuple[Tiling, ...] = ("direct", "panel", "narrow", "chunk")
        warps = (rows * lanes / wide, 4 * rows * lanes / wide, rows * lanes)
        for tiling, count in zip(order, warps, strict=False):
            if count >= enough:
                return (tiling, *(t for t in order if t != tiling))
        return ("chunk", "narrow", "panel", "direct")

    def _library(
        self, shape: tuple[int, ...], spec: ConvSpec, block: int | None
    ) -> tuple[Tiling, ...]:
        """Return the tiling of a library's product where it can do a layer."""
        plain = spec.strides == (1, 1) and spec.pads == (0, 0, 0, 0)
        fits = block is None and plain and spec.groups == 1 and shape[2:] == (1, 1)
        return ("library",) if fits and self.device.launcher.has_products else ()

    def prepare_conv(
        self,
        weights: HostArray,
        bias: HostArray | None,
        spec: ConvSpec,
        /,
        *,
        block: int | None,
        tiling: Tiling = "direct",
    ) -> CudaConv:
        """Pack on the host, upload."""
        check_weights(weights, bias, spec, block)
        if bias is None:
            bias = np.zeros(weights.shape[0], np.float32)
        layout = self._layout(weights, spec, block, tiling)
        packed = _pack(layout, weights, spec.groups, block)
        if layout not in ("dense", "depthwise"):
            packed = replace(packed, values=as_elements(packed.values, self.precision))
        return CudaConv(
            self, weights.shape, spec, layout, None if layout == "depthwise" else block,
            tiling if tiling in TILINGS[layout] else "direct",
            packed.map(self.device.to_device), self.device.to_device(bias),
        )  # fmt: skip

    def _layout(
        self, weights: HostArray, spec: ConvSpec, block: int | None, tiling: Tiling
    ) -> str:
        """Return how weights are laid out, which decides the kernel."""
        if is_depthwise(weights, spec):
            return "depthwise"
        if tiling == "library" and self._library(weights.shape, spec, block):
            return "rows"
        if self.precision == "fp32":
            return "dense" if block is None else "blocks"
        if block is None:
            return "dense_fragments"
        if tiling == "bitmap":
            return "bitmap"
        plain = block not in registry.MMA_BLOCKS or tiling != "direct"
        return "blocks" if plain else "fragments"


#: Tilings of the kernel that reads each layout.
TILINGS: dict[str, tuple[Tiling, ...]] = {
    "blocks": tuple(SPARSE),
    "dense": tuple(DENSE),
    "depthwise": tuple(DEPTHWISE),
    "fragments": ("direct",),
    "dense_fragments": ("direct",),
    "bitmap": ("bitmap",),
    "rows": ("library",),
}


def _pack(
    layout: str, weights: HostArray, groups: int, block: int | None
) -> Packed[HostArray]:
    if layout == "depthwise":
        return pack_depthwise(weights)
    if layout == "rows":
        return pack_rows(weights)
    if layout == "dense":
        return pack_columns(weights, groups)
    if layout == "dense_fragments":
        return pack_dense_fragments(weights, groups)
    if layout == "bitmap":
        return pack_bitmap(weights, groups)
    blocks = pack_blocks(weights, groups, block or 1)
    return pack_fragments(blocks) if layout == "fragments" else blocks


@dataclass(frozen=True, eq=False)
class CudaConv:
    """Packed weights of one layer on the device."""

    family: Convolutions
    shape: tuple[int, ...]
    spec: ConvSpec
    layout: str
    block: int | None
    tiling: Tiling
    packed: Packed[DeviceArray]
    bias: DeviceArray

    @property
    def kernel(self) -> str:
        """Name of layout and tiling."""
        name = {
            "blocks": f"spmm_b{self.block}",
            "fragments": f"spmm_b{self.block}_mma",
            "dense_fragments": "dense_mma",
            "bitmap": f"spmm_b{self.block}",
            "rows": "dense",
        }.get(self.layout, self.layout)
        return name if self.tiling == "direct" else f"{name}_{self.tiling}"

    @property
    def nnz(self) -> int:
        """Weights that are multiplied."""
        return self.packed.nnz

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.packed.nbytes + self.bias.nbytes

    @property
    def density(self) -> float:
        """Share of the weights that is multiplied."""
        return self.nnz / math.prod(self.shape)

    def retiled(self, tiling: Tiling, /) -> CudaConv | None:
        """Return the same weights, unless the tiling needs another layout."""
        if tiling not in TILINGS[self.layout]:
            return None
        return replace(self, tiling=tiling)

    def bind(self, x: Grid, y: Grid, /, *, threads: int = 1) -> BoundConv[DeviceArray]:
        """Work out the tables of offsets and upload them."""
        return CudaBoundConv(self, x, y)
