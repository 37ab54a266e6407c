"""Problems on planes of 16 bits: rows go in and come out as float32.

What is right is the reference on rounded pixels and weights; only the result is rounded
once more, so the tolerance is a few units in the last place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from kernels.network_cases import planes

from nnz_kernels import reference
from nnz_kernels.api import AttentionSpec, ConvSpec, PoolSpec
from nnz_kernels.arrays import HostArray
from nnz_kernels.cuda.kernels import CudaKernels
from nnz_kernels.cuda.pack import as_elements
from nnz_kernels.planes import Grid, token_grid

Answers = Iterator[tuple[HostArray, HostArray]]
Case = Callable[[CudaKernels], Answers]

#: Of each precision the largest difference, relative and absolute.
TOLERANCE = {"fp16": 4e-3, "bf16": 3e-2}

_SPEC = ConvSpec(pads=(1, 1, 1, 1), clamp=(-1.0, 2.0), activation="silu")


def rounded(values: HostArray, precision: str) -> HostArray:
    """Return float32 values that the precision holds exactly."""
    bits = as_elements(np.asarray(values, np.float32), precision)
    if precision == "fp16":
        return bits.astype(np.float32)
    wide: HostArray = (bits.astype(np.uint32) << 16).view(np.float32)
    return wide


class Bench:
    """Rows on their way into planes and back."""

    def __init__(self, kernels: CudaKernels) -> None:
        self.kernels, self.device = kernels, kernels.device

    def draw(self, seed: int, *shape: int) -> HostArray:
        rng = np.random.default_rng(seed)
        return rounded(rng.standard_normal(shape), self.kernels.precision)

    def planes(self, floats: int) -> Any:
        return self.device.empty((floats,), self.kernels.PLANES)

    def put(self, image: HostArray, grid: Grid) -> Any:
        laid = self.planes(grid.size(image.shape[1]))
        self.kernels.to_planes(self.device.to_device(image), laid, grid)
        return laid

    def get(self, laid: Any, grid: Grid, channels: int) -> HostArray:
        """Return pixels ``[n, c, h, w]``, after a look at all other places."""
        raw = self.device.to_host(laid).view(np.uint16).copy()
        grid.view(raw, channels)[...] = 0
        assert not raw.any(), "an op left something outside of the pixels"
        out = self.device.empty((grid.n, channels, grid.h, grid.w), np.float32)
        self.kernels.from_planes(laid, grid, channels, out)
        return self.device.to_host(out)

    def vector(self, values: HostArray) -> Any:
        return self.device.to_device(values)


def _expected(grid: Grid, channels: int, op: Callable[[HostArray], None]) -> HostArray:
    y = np.empty(grid.size(channels), np.float32)
    op(y)
    return grid.view(y, channels).transpose(1, 0, 2, 3)


def _conv(
    bench: Bench, shape: tuple[int, ...], weights: HostArray, spec: ConvSpec,
    block: int | None, tiling: Any, borders: Any,
) -> tuple[HostArray, HostArray]:  # fmt: skip
    image = bench.draw(1, *shape)
    bias = bench.draw(3, weights.shape[0])
    size = spec.output_size(shape[2], shape[3], (weights.shape[2], weights.shape[3]))
    xg, yg = Grid(shape[0], *shape[2:], *borders[0]), Grid(shape[0], *size, *borders[1])
    residual = bench.draw(4, shape[0], weights.shape[0], *size)
    ours = bench.kernels.prepare_conv(weights, bias, spec, block=block, tiling=tiling)
    bound, channels = ours.bind(xg, yg), weights.shape[0]
    y = bench.planes(yg.size(channels))
    scratch = bench.planes(bound.scratch)
    bound.run(bench.put(image, xg), y, bench.put(residual, yg), scratch)
    theirs = reference.prepare_conv(weights, bias, spec, block=block).bind(xg, yg)
    x, added = planes(image, xg), planes(residual, yg)
    none = np.empty(0, np.float32)
    right = _expected(yg, channels, lambda out: theirs.run(x, out, added, none))
    return bench.get(y, yg, channels), right


def _sparse(rng: Any, shape: tuple[int, ...], precision: str) -> HostArray:
    kept = rng.random(shape) < 0.4
    return rounded(rng.standard_normal(shape) * kept / 3, precision)


def convolutions(*blocks: int | None) -> Case:
    def case(kernels: CudaKernels) -> Answers:
        bench, rng = Bench(kernels), np.random.default_rng(2)
        weights = _sparse(rng, (37, 7, 3, 3), kernels.precision)
        grouped = _sparse(rng, (15, 3, 3, 2), kernels.precision)
        uneven = replace(_SPEC, groups=3, strides=(2, 1), dilations=(1, 2))
        for block in blocks:
            for tiling in kernels.tilings(weights.shape, _SPEC, block, 70):
                for borders in (((1, 1), (1, 2)), ((0, 0), (0, 0))):
                    yield _conv(
                        bench, (2, 7, 7, 5), weights, _SPEC, block, tiling, borders
                    )
                plain = ((0, 0), (0, 0))
                yield _conv(bench, (1, 9, 9, 9), grouped, uneven, block, tiling, plain)

    return case


def unseen(kernels: CudaKernels) -> Answers:
    """Pixels that no weight sees may be anything: padding of a step reads none."""
    bench, grid = Bench(kernels), token_grid(70)
    image = bench.draw(10, 1, 5, 1, 70)
    image[0, 0] = np.nan
    weights = _sparse(np.random.default_rng(11), (19, 5, 1, 1), kernels.precision)
    weights[:, 0] = 0
    right = np.einsum("oi,nihw->nohw", weights[:, 1:, 0, 0], image[:, 1:])
    for block in (4, 8, 16):
        conv = kernels.prepare_conv(weights, None, ConvSpec(), block=block)
        y = bench.planes(grid.size(19))
        conv.bind(grid, grid).run(bench.put(image, grid), y, None, bench.planes(0))
        yield bench.get(y, grid, 19), right


def beyond_half(kernels: CudaKernels) -> Answers:
    """A sum below what float16 holds, before an activation that makes a zero of it."""
    bench, grid = Bench(kernels), token_grid(70)
    image = np.full((1, 4, 1, 70), -300, np.float32)
    weights = np.full((16, 4, 1, 1), 300, np.float32)
    spec = ConvSpec(activation="silu")
    for block in (None, 1, 16):
        conv = kernels.prepare_conv(weights, None, spec, block=block)
        y = bench.planes(grid.size(16))
        conv.bind(grid, grid).run(bench.put(image, grid), y, None, bench.planes(0))
        yield bench.get(y, grid, 16), np.zeros((1, 16, 1, 70))


def depthwise(kernels: CudaKernels) -> Answers:
    bench = Bench(kernels)
    weights = rounded(np.random.default_rng(5).standard_normal((12, 1, 3, 3)), "bf16")
    spec = replace(_SPEC, groups=6)
    for tiling in ("direct", "narrow"):
        borders = ((1, 1), (1, 1))
        yield _conv(bench, (2, 6, 7, 9), weights, spec, None, tiling, borders)


def library(kernels: CudaKernels) -> Answers:
    weights = _sparse(np.random.default_rng(2), (20, 33, 1, 1), kernels.precision)
    spec, bench = replace(_SPEC, pads=(0, 0, 0, 0)), Bench(kernels)
    for borders in (((1, 1), (1, 1)), ((0, 0), (1, 2))):
        yield _conv(bench, (2, 33, 5, 4), weights, spec, None, "library", borders)


def pools(kernels: CudaKernels) -> Answers:
    bench, channels = Bench(kernels), 5
    xg, yg = Grid(2, 9, 7, 1, 1), Grid(2, 5, 4, 2, 2)
    image = bench.draw(6, 2, channels, 9, 7)
    there, here = bench.put(image, xg), planes(image, xg)
    spec = PoolSpec((3, 3), (2, 2), (1, 1, 1, 1))
    for name in ("max_pool", "average_pool"):
        y = bench.planes(yg.size(channels))
        getattr(kernels, name)(there, xg, y, yg, channels, spec, threads=1)
        run = getattr(reference, name)
        yield (
            bench.get(y, yg, channels),
            _expected(
                yg,
                channels,
                lambda out, run=run: run(here, xg, out, yg, channels, spec, threads=1),
            ),
        )
    means = Grid(2, 1, 1)
    y = bench.planes(means.size(channels))
    kernels.global_average_pool(there, xg, y, means, channels, threads=1)
    yield bench.get(y, means, channels), image.mean(axis=(2, 3), keepdims=True)


def pointwise(kernels: CudaKernels) -> Answers:
    bench, channels, grid = Bench(kernels), 3, Grid(2, 3, 5, 1, 2)
    image = bench.draw(7, 2, channels, 3, 5)
    there, size = bench.put(image, grid), grid.size(channels)
    yield bench.get(there, grid, channels), image
    y = bench.planes(size)
    kernels.unary("tanh", there, y)
    yield bench.get(y, grid, channels), np.tanh(image)
    kernels.add_planes(there, there, y, -1.0, 1.0)
    yield bench.get(y, grid, channels), np.clip(2 * image, -1, 1)
    slope = np.linspace(-1, 1, channels, dtype=np.float32)
    column, vector = slope[:, None, None], bench.vector(slope)
    kernels.channel_affine(there, vector, vector, -0.5, 0.5, y, grid, channels)
    yield bench.get(y, grid, channels), np.clip(image * column + column, -0.5, 0.5)
    kernels.prelu(there, vector, y, grid, channels)
    yield bench.get(y, grid, channels), np.where(image < 0, column * image, image)
    kernels.unary("sigmoid", there, y)
    kernels.zero_border(y, grid, channels)
    yield bench.get(y, grid, channels), 1 / (1 + np.exp(-image))


def tokens(kernels: CudaKernels) -> Answers:
    bench, grid = Bench(kernels), token_grid(45)
    rows = bench.draw(8, 45, 70)
    there = bench.planes(grid.size(70))
    kernels.to_tokens(bench.device.to_device(rows), there, grid)
    out = bench.device.empty((45, 70), np.float32)
    kernels.from_tokens(there, grid, 70, out)
    yield bench.device.to_host(out), rows
    gamma = np.linspace(0.5, 1.5, 70, dtype=np.float32)
    vector, y = bench.vector(gamma), bench.planes(grid.size(70))
    kernels.layer_norm_planes(there, vector, vector, 1e-5, y, grid, 70, threads=1)
    kernels.from_tokens(y, grid, 70, out)
    yield bench.device.to_host(out), reference.layer_norm(rows, gamma, gamma, 1e-5)


def staged(kernels: CudaKernels) -> Answers:
    rng = np.random.default_rng(9)
    weights = _sparse(rng, (9, 3, 3, 3), kernels.precision)
    borders = ((0, 0), (0, 0))
    yield _conv(Bench(kernels), (2, 3, 7, 5), weights, _SPEC, 1, "direct", borders)


def attention(kernels: CudaKernels) -> Answers:
    bench = Bench(kernels)
    for value_dim, keys in ((70, 67), (20, 5)):
        spec = AttentionSpec(2, 35, keys, 2, 40, value_dim, 0.3)
        grids = token_grid(70), token_grid(2 * keys), token_grid(2 * keys)
        rows = [
            bench.draw(seed, grid.w, 2 * dim)
            for seed, (grid, dim) in enumerate(
                zip(grids, (40, 40, value_dim), strict=True)
            )
        ]
        there, here = [], []
        for one, grid in zip(rows, grids, strict=True):
            laid = bench.planes(grid.size(one.shape[1]))
            kernels.to_tokens(bench.device.to_device(one), laid, grid)
            there.append(laid)
            host = np.empty(grid.size(one.shape[1]), np.float32)
            reference.to_tokens(one, host, grid)
            here.append(host)
        y = bench.planes(grids[0].size(2 * value_dim))
        q, k, v = there
        kernels.attention_planes(q, k, v, None, y, spec, threads=1)
        out = bench.device.empty((70, 2 * value_dim), np.float32)
        kernels.from_tokens(y, grids[0], 2 * value_dim, out)
        right = np.empty(grids[0].size(2 * value_dim), np.float32)
        q, k, v = here
        reference.attention_planes(q, k, v, None, right, spec, threads=1)
        flat = grids[0].view(right, 2 * value_dim).reshape(2 * value_dim, -1).T
        yield bench.device.to_host(out), flat


#: By module of the kernels that a case is about.
HALF_CASES: dict[str, tuple[Case, ...]] = {
    "sparse_conv": (convolutions(1, 2, 4, 8, 16),),
    "dense_conv": (depthwise, library),
    "mma_conv": (convolutions(4, 8, 16, None), convolutions(1), unseen, beyond_half),
    "pool": (pools,),
    "pointwise": (pointwise, tokens, staged),
    "attention": (attention, tokens),
}
