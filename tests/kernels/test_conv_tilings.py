"""Tilings but ``winograd``, blocks and threads change no bit of a convolution."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels.network_cases import (
    BLOCKS,
    PADDED,
    PLAIN,
    close,
    pixels,
    planes,
    random_case,
    written,
)
from kernels.network_cases import convolve as run

from nnz_kernels import cpu, reference
from nnz_kernels.api import ConvSpec, Tiling
from nnz_kernels.api.conv import ACTIVATIONS
from nnz_kernels.api.pointwise import UnaryKind
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu.tasks import chunk_columns
from nnz_kernels.planes import Grid

TILINGS: tuple[Tiling, ...] = ("direct", "panel", "narrow", "chunk")

#: Every way to compute one layer.
WAYS = tuple(itertools.product(TILINGS, BLOCKS))

#: Size of the kernel, spec, input channels and output channels.
LAYERS = [
    pytest.param(1, PLAIN, 13, 13, id="1x1"),
    pytest.param(1, ConvSpec(strides=(2, 2)), 13, 19, id="1x1 stride 2"),
    pytest.param(3, PADDED, 13, 13, id="3x3"),
    pytest.param(3, replace(PADDED, strides=(2, 2)), 7, 13, id="3x3 stride 2"),
    pytest.param(3, ConvSpec((1, 1), (2, 2), (2, 2, 2, 2)), 5, 13, id="dilation 2"),
    pytest.param(3, replace(PADDED, groups=2), 14, 26, id="groups"),
    pytest.param(3, replace(PADDED, groups=5), 15, 5, id="one output a group"),
    pytest.param(1, ConvSpec(groups=3), 39, 51, id="1x1 groups"),
    pytest.param(3, PADDED, 61, 9, id="several chunks"),
    pytest.param(3, replace(PADDED, groups=2), 70, 6, id="several chunks a group"),
]

#: Images of which no tile is a divisor.
SIZES = [(7, 7), (5, 9), (1, 13), (11, 37)]

BOUNDED = (-1.0, 1.5)


def results(
    x: HostArray,
    weights: HostArray,
    bias: HostArray | None,
    spec: ConvSpec,
    residual: HostArray | None,
) -> list[tuple[str, HostArray]]:
    """Compute a layer in every way and with 1, 2 and 3 threads."""
    n, _, h, w = x.shape
    size = spec.output_size(h, w, weights.shape[2:])
    xg, yg = Grid(n, h, w, *spec.pads[:2]), Grid(n, *size, *spec.pads[:2])
    laid, added = planes(x, xg), None if residual is None else planes(residual, yg)
    found = []
    for tiling, block in WAYS:
        conv = cpu.prepare_conv(weights, bias, spec, block=block, tiling=tiling)
        for threads in (1, 2, 3):
            bound = conv.bind(xg, yg, threads=threads)
            scratch = np.full(bound.scratch, np.nan, np.float32)
            call = (laid, added, scratch)
            y = written(yg, len(weights), _runs(bound, *call))
            found.append((f"{tiling} {block} with {threads} threads", y))
    return found


def _runs(bound: Any, x: HostArray, residual: Any, scratch: HostArray) -> Any:
    return lambda y: bound.run(x, y, residual, scratch)


@pytest.mark.usefixtures("three_threads")
class TestSameBits:
    @pytest.mark.parametrize("batch", [1, 3])
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize(("kernel", "spec", "inputs", "outputs"), LAYERS)
    def test_of_every_geometry(
        self,
        kernel: int,
        spec: ConvSpec,
        inputs: int,
        outputs: int,
        size: tuple[int, int],
        batch: int,
    ) -> None:
        """The order of a sum is fixed: bias, residual, then columns ascending."""
        shape = (outputs, inputs // spec.groups, kernel, kernel)
        x, weights, bias = random_case(20, (batch, inputs, *size), shape, 0.3)
        weights[outputs // 2] = 0  # a row without a weight

        found = results(x, weights, bias, spec, None)

        close(found[0][1], run(reference, x, weights, bias, spec))
        for way, y in found[1:]:
            np.testing.assert_array_equal(y, found[0][1], way)

    @pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
    @pytest.mark.parametrize("batch", [1, 3])
    @pytest.mark.parametrize(("kernel", "spec", "inputs", "outputs"), LAYERS)
    def test_of_an_epilogue(
        self,
        kernel: int,
        spec: ConvSpec,
        inputs: int,
        outputs: int,
        batch: int,
        bias: bool,
    ) -> None:
        """The residual comes once, though a sum be cut into parts; the clamp last."""
        spec = replace(spec, clamp=BOUNDED)
        shape = (outputs, inputs // spec.groups, kernel, kernel)
        x, weights, biases = random_case(21, (batch, inputs, 5, 9), shape, 0.2)
        given = biases if bias else None
        size = spec.output_size(5, 9, (kernel, kernel))
        residual = random_case(22, (batch, outputs, *size), (1, 1), 1)[0]

        found = results(x, weights, given, spec, residual)

        expected = run(reference, x, weights, given, spec, residual=residual)
        close(found[0][1], expected)
        assert expected.min() == BOUNDED[0]
        assert expected.max() == BOUNDED[1]
        for way, y in found[1:]:
            np.testing.assert_array_equal(y, found[0][1], way)

    @pytest.mark.parametrize("inputs", [7, 61])
    @pytest.mark.parametrize("density", [0.0, 0.01])
    def test_of_layers_that_are_nearly_empty(self, density: float, inputs: int) -> None:
        """Most runs, and most parts of a sum, have no column at all."""
        x, weights, bias = random_case(23, (2, inputs, 7, 7), (13, inputs, 3, 3), 0.0)
        count = round(density * weights.size)
        weights.reshape(-1)[:: weights.size // max(count, 1) + 1][:count] = 1.5
        residual = random_case(24, (2, 13, 7, 7), (1, 1), 1)[0]

        found = results(x, weights, bias, PADDED, residual)

        close(found[0][1], run(reference, x, weights, bias, PADDED, residual=residual))
        for way, y in found[1:]:
            np.testing.assert_array_equal(y, found[0][1], way)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize(("kernel", "spec", "inputs", "outputs"), LAYERS)
    def test_of_an_activation(
        self,
        kernel: int,
        spec: ConvSpec,
        inputs: int,
        outputs: int,
        activation: UnaryKind,
    ) -> None:
        """It comes once, after the last part of a sum; its bits know no lane."""
        spec = replace(spec, clamp=(-4.0, 3.0), activation=activation)
        shape = (outputs, inputs // spec.groups, kernel, kernel)
        x, weights, bias = random_case(28, (2, inputs, 5, 9), shape, 0.2)
        size = spec.output_size(5, 9, (kernel, kernel))
        residual = random_case(29, (2, outputs, *size), (1, 1), 1)[0]

        found = results(x, weights, bias, spec, residual)

        close(
            found[0][1], run(reference, x, weights, bias, spec, residual=residual), 1e-5
        )
        for way, y in found[1:]:
            np.testing.assert_array_equal(y, found[0][1], way)

    @pytest.mark.parametrize("activation", [None, "gelu"])
    def test_whatever_the_batch(self, activation: UnaryKind | None) -> None:
        """An image has the same answer alone and among others."""
        x, weights, bias = random_case(25, (8, 13, 5, 9), (13, 13, 3, 3), 0.3)
        spec = replace(PADDED, activation=activation)

        together = run(cpu, x, weights, bias, spec, block=4)

        for image in range(8):
            alone = run(cpu, x[image : image + 1], weights, bias, spec, block=1)
            np.testing.assert_array_equal(together[image], alone[0])


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("tiling", "block"), WAYS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_residual_may_be_the_output(
    tiling: Tiling, block: int | None, kernel: int, threads: int
) -> None:
    """Also where a sum of several parts goes on from what lies in the output."""
    channels = 5 + chunk_columns(block) // kernel**2
    spec = ConvSpec(pads=(kernel // 2,) * 4, clamp=BOUNDED)
    shape = (channels, channels, kernel, kernel)
    x, weights, bias = random_case(26, (2, channels, 3, 7), shape, 0.02)
    grid = Grid(2, 3, 7, 1, 1)
    prepared = cpu.prepare_conv(weights, bias, spec, block=block, tiling=tiling)
    conv = prepared.bind(grid, grid, threads=threads)
    y = planes(x[:, ::-1], grid)

    conv.run(planes(x, grid), y, y, np.full(conv.scratch, np.nan, np.float32))

    added = np.ascontiguousarray(x[:, ::-1])
    expected = run(reference, x, weights, bias, spec, residual=added)
    close(pixels(y, grid, channels), expected)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("clamp", [(-np.inf, np.inf), (0.0, 6.0)])
@pytest.mark.parametrize(("tiling", "block"), WAYS)
def test_special_values(
    tiling: Tiling, block: int | None, clamp: tuple[float, float]
) -> None:
    """NaN and infinity reach the pixels that the reference says, and no others."""
    x, weights, bias = random_case(27, (3, 61, 5, 9), (13, 61, 3, 3), 0.1)
    x[0, 3, 2, 4], x[1, 7, 0, 0], x[1, 60, 4, 8] = np.nan, np.inf, -np.inf
    residual = np.zeros((3, 13, 5, 9), np.float32)
    residual[2, 5, 4, 8], residual[2, 6, 0, 0] = np.nan, -np.inf
    spec = replace(PADDED, clamp=clamp)

    y = run(
        cpu,
        x,
        weights,
        bias,
        spec,
        block=block,
        tiling=tiling,
        borders=((1, 1), (1, 1)),
        residual=residual,
        threads=3,
    )

    with np.errstate(invalid="ignore"):
        expected = run(
            reference, x, weights, bias, spec, block=block, residual=residual
        )
    assert np.isnan(expected).any()
    close(y, expected)


@pytest.mark.parametrize(("tiling", "block"), WAYS)
def test_kernel_has_the_name_of_its_tiling(tiling: Tiling, block: int | None) -> None:
    weights = np.ones((8, 32, 1, 1), np.float32)

    conv = cpu.prepare_conv(weights, None, PLAIN, block=block, tiling=tiling)

    name = "dense" if block is None else f"spmm_b{block}"
    assert conv.kernel == (name if tiling == "direct" else f"{name}_{tiling}")
    assert conv.block == block


class TestTilings:
    @pytest.mark.parametrize("block", BLOCKS)
    def test_few_columns_are_not_copied(self, block: int | None) -> None:
        assert cpu.tilings((64, 15, 1, 1), PLAIN, block, 49) == ("direct",)
        assert cpu.tilings((64, 1, 7, 7), PLAIN, block, 49) == ("direct",)
        assert cpu.tilings((64, 16, 1, 1), PLAIN, block, 49) == ("panel", "direct")
        assert cpu.tilings((64, 16, 1, 1), PLAIN, block, 4) == ("direct",)

    def test_only_low_tiles_are_worth_chunks(self) -> None:
        many = (64, 1 + max(chunk_columns(block) for block in BLOCKS), 1, 1)

        assert cpu.tilings(many, PLAIN, 1, 49) == ("panel", "narrow", "chunk", "direct")
        assert cpu.tilings(many, PLAIN, 4, 49) == ("panel", "direct")

    def test_reference_has_one(self) -> None:
        assert reference.tilings((64, 64, 3, 3), PADDED, 4, 49) == ("direct",)
