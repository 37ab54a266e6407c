from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.signal
from kernels.network_cases import (
    BLOCKS,
    PADDED,
    PLAIN,
    array,
    close,
    planes,
    random_case,
    written,
)
from kernels.network_cases import convolve as run

from nnz_kernels import reference
from nnz_kernels.api import ConvSpec, Kernels
from nnz_kernels.api.conv import ACTIVATIONS
from nnz_kernels.planes import token_grid

#: Border of the input and of the output.
BORDERS = [
    pytest.param((0, 0), (0, 0), id="no border"),
    pytest.param((2, 2), (2, 2), id="wide border"),
    pytest.param((1, 1), (1, 1), id="border of one"),
    pytest.param((1, 2), (0, 1), id="borders differ"),
]

SPECS = [
    pytest.param(1, PLAIN, id="1x1"),
    pytest.param(1, ConvSpec(strides=(2, 2)), id="1x1 stride 2"),
    pytest.param(3, PADDED, id="3x3"),
    pytest.param(3, ConvSpec(), id="3x3 without padding"),
    pytest.param(3, replace(PADDED, strides=(2, 2)), id="3x3 stride 2"),
    pytest.param(3, ConvSpec((1, 2), (1, 1), (0, 1, 2, 0)), id="uneven"),
    pytest.param(3, ConvSpec((1, 1), (2, 2), (2, 2, 2, 2)), id="dilation 2"),
    pytest.param(3, ConvSpec((2, 3), (2, 1), (2, 1, 2, 1)), id="strides, dilations"),
    pytest.param(5, ConvSpec((3, 3), (1, 1), (2, 2, 2, 2)), id="5x5 stride 3"),
]


class TestByHand:
    @pytest.mark.parametrize("block", BLOCKS)
    def test_one_by_one(self, kernels: Kernels[Any], block: int | None) -> None:
        """Two channels of three pixels; the second output skips a channel."""
        x = array([1, 2, 3, 10, 20, 30], 1, 2, 1, 3)
        weights = array([1, 2, 0, -1], 2, 2, 1, 1)

        y = run(kernels, x, weights, array([100, 0], 2), block=block)

        assert y.tolist() == [[[[121, 142, 163]], [[-10, -20, -30]]]]

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize(("bx", "by"), BORDERS)
    def test_three_by_three(
        self, kernels: Kernels[Any], block: int | None, bx: Any, by: Any
    ) -> None:
        """The kernel looks left and up: a 1 at the corner, a 2 in the middle."""
        x = array([1, 2, 3, 4, 5, 6], 1, 1, 2, 3)
        weights = array([1, 0, 0, 0, 2, 0, 0, 0, 0], 1, 1, 3, 3)

        y = run(kernels, x, weights, None, PADDED, block=block, borders=(bx, by))

        assert y.tolist() == [[[[2, 4, 6], [8, 11, 14]]]]

    def test_stride_and_uneven_padding(self, kernels: Kernels[Any]) -> None:
        """Taps 1, 10, 100 along a row of five with two zeros before it."""
        x = array([1, 2, 3, 4, 5], 1, 1, 1, 5)
        weights = array([1, 10, 100], 1, 1, 1, 3)
        spec = ConvSpec(strides=(1, 2), pads=(0, 2, 0, 1))

        y = run(kernels, x, weights, None, spec)

        assert y.tolist() == [[[[100, 321, 543]]]]  # 0 0 1 | 1 2 3 | 3 4 5

    def test_dilation(self, kernels: Kernels[Any]) -> None:
        x = array([1, 2, 3, 4, 5], 1, 1, 1, 5)
        weights = array([1, 10], 1, 1, 1, 2)

        y = run(kernels, x, weights, None, ConvSpec(dilations=(1, 3)))

        assert y.tolist() == [[[[41, 52]]]]

    @pytest.mark.parametrize("block", BLOCKS)
    def test_groups(self, kernels: Kernels[Any], block: int | None) -> None:
        """Outputs 0, 1 see inputs 0, 1; output 2, 3 see inputs 2, 3."""
        x = array([1, 2, 3, 4], 1, 4, 1, 1)
        weights = array([1, 10, 2, 20, 3, 30, 4, 40], 4, 2, 1, 1)

        y = run(kernels, x, weights, None, ConvSpec(groups=2), block=block)

        assert y.ravel().tolist() == [21, 42, 129, 172]

    def test_residual_then_clamp(self, kernels: Kernels[Any]) -> None:
        x = array([1, 2, 3], 1, 1, 1, 3)
        residual = array([-5, 0, 100], 1, 1, 1, 3)
        spec = ConvSpec(clamp=(0, 6))

        y = run(kernels, x, array([2], 1, 1, 1, 1), None, spec, residual=residual)

        assert y.tolist() == [[[[0, 4, 6]]]]

    def test_fully_connected_on_tokens(self, kernels: Kernels[Any]) -> None:
        """Two features of one token, three outputs."""
        x, grid = planes(array([5, 7], 1, 2, 1, 1), token_grid(1)), token_grid(1)
        weights = array([1, 0, 0, 1, 1, 1], 3, 2, 1, 1)
        conv = kernels.prepare_conv(weights, None, PLAIN, block=1).bind(grid, grid)

        scratch = np.full(conv.scratch, np.nan, np.float32)
        y = written(grid, 3, lambda y: conv.run(x, y, None, scratch))

        assert y.ravel().tolist() == [5, 7, 12]


@pytest.mark.parametrize("dilation", [1, 2])
def test_reference_is_scipys_correlation(dilation: int) -> None:
    x, weights, _ = random_case(0, (1, 1, 9, 11), (1, 1, 3, 3), 1.0)
    spread = np.zeros((2 * dilation + 1, 2 * dilation + 1))
    spread[::dilation, ::dilation] = weights[0, 0]

    y = run(reference, x, weights, None, ConvSpec(dilations=(dilation, dilation)))

    close(y[0, 0], scipy.signal.correlate2d(x[0, 0], spread, mode="valid"))


class TestEqualsReference:
    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize(("bx", "by"), BORDERS)
    @pytest.mark.parametrize(("kernel", "spec"), SPECS)
    def test_geometry(
        self,
        kernels: Kernels[Any],
        kernel: int,
        spec: ConvSpec,
        bx: Any,
        by: Any,
        block: int | None,
    ) -> None:
        """Every stride, dilation and padding, whatever the borders are."""
        x, weights, bias = random_case(1, (2, 3, 13, 5), (17, 3, kernel, kernel), 0.3)

        y = run(kernels, x, weights, bias, spec, block=block, borders=(bx, by))

        close(y, run(reference, x, weights, bias, spec, block=block))

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("batch", [1, 3])
    @pytest.mark.parametrize("size", [(1, 1), (7, 7), (13, 5), (31, 30), (1, 150)])
    @pytest.mark.parametrize("channels", [(1, 1), (17, 33), (33, 7)])
    def test_sizes(
        self,
        kernels: Kernels[Any],
        channels: tuple[int, int],
        size: tuple[int, int],
        batch: int,
        block: int | None,
    ) -> None:
        """No number of channels or pixels is special."""
        shape = (channels[1], channels[0], 1, 1)
        x, weights, bias = random_case(2, (batch, channels[0], *size), shape, 0.2)

        y = run(kernels, x, weights, bias, block=block, threads=2)

        close(y, run(reference, x, weights, bias, block=block))

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize(
        ("groups", "inputs", "outputs"),
        [
            pytest.param(3, 6, 9, id="groups"),
            pytest.param(2, 6, 34, id="groups wider than a block"),
            pytest.param(7, 7, 7, id="depthwise"),
            pytest.param(5, 5, 15, id="depthwise, three outputs each"),
        ],
    )
    @pytest.mark.parametrize("stride", [1, 2, 3])
    @pytest.mark.parametrize("kernel", [3, 5])
    @pytest.mark.parametrize("size", [(7, 7), (19, 37)])
    def test_groups(
        self,
        kernels: Kernels[Any],
        groups: int,
        inputs: int,
        outputs: int,
        stride: int,
        kernel: int,
        size: tuple[int, int],
        block: int | None,
    ) -> None:
        pad = kernel // 2
        spec = ConvSpec((stride, stride), (1, 1), (pad,) * 4, groups, (-1.0, 1.5))
        shape = (outputs, inputs // groups, kernel, kernel)
        x, weights, bias = random_case(3, (2, inputs, *size), shape, 0.5)
        borders = ((pad, pad), (1, 1))

        y = run(kernels, x, weights, bias, spec, block=block, borders=borders)

        close(y, run(reference, x, weights, bias, spec, block=block))

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("residual", [False, True])
    @pytest.mark.parametrize("clamp", [(-math.inf, math.inf), (0.0, 6.0), (-1.0, 0.5)])
    @pytest.mark.parametrize("groups", [1, 6])
    def test_epilogue(
        self,
        kernels: Kernels[Any],
        groups: int,
        clamp: tuple[float, float],
        residual: bool,
        block: int | None,
    ) -> None:
        spec = replace(PADDED, clamp=clamp, groups=groups)
        x, weights, bias = random_case(4, (2, 6, 9, 8), (6, 6 // groups, 3, 3), 0.4)
        added = x[:, ::-1].copy() if residual else None

        y = run(
            kernels,
            x,
            weights,
            bias,
            spec,
            block=block,
            residual=added,
            borders=((1, 1), (1, 1)),
        )

        close(y, run(reference, x, weights, bias, spec, block=block, residual=added))

    @pytest.mark.parametrize("block", BLOCKS)
    @pytest.mark.parametrize("groups", [1, 40])
    def test_threads_change_nothing(
        self, kernels: Kernels[Any], groups: int, block: int | None
    ) -> None:
        """Enough work for two threads gives the same bits as one."""
        spec = replace(PADDED, groups=groups, strides=(2, 2))
        shape = (80, 40 // groups, 3, 3)
        x, weights, bias = random_case(5, (1, 40, 60, 60), shape, 0.5)

        one, two = (
            run(kernels, x, weights, bias, spec, block=block, threads=threads)
            for threads in (1, 2)
        )

        assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("block", [None, 1, 4])
@pytest.mark.parametrize("case", ["planes", "tokens", "few", "depthwise", "chunk"])
def test_activation(
    kernels: Kernels[Any], activation: Any, block: Any, case: str
) -> None:
    """It follows the clamp of the whole sum, residual included, and keeps borders."""
    sizes = {
        "planes": ((2, 5, 9, 7), (10, 5, 3, 3)),
        "tokens": ((1, 9, 1, 37), (11, 9, 1, 1)),
        "few": ((3, 12, 1, 1), (7, 12, 1, 1)),
        "depthwise": ((2, 6, 9, 11), (6, 1, 3, 3)),
        "chunk": ((1, 300, 3, 5), (9, 300, 1, 1)),
    }
    x, weights, bias = random_case(31, *sizes[case], 0.4)
    pads = (weights.shape[2] // 2,) * 4
    groups = 6 if case == "depthwise" else 1
    spec = ConvSpec(pads=pads, groups=groups, clamp=(-2, 3), activation=activation)
    size = spec.output_size(*x.shape[2:], weights.shape[2:])
    residual = random_case(32, (len(x), len(weights), *size), (1, 1, 1, 1), 1.0)[0]
    borders = ((pads[0], pads[0]),) * 2
    tiling: Any = "chunk" if case == "chunk" else "direct"

    found, expected = (
        run(
            one, x, weights, bias, spec, block=block, borders=borders,
            residual=residual, tiling=tiling,
        )
        for one in (kernels, reference)
    )  # fmt: skip

    close(found, expected)
