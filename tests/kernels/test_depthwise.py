"""Depthwise convolutions: every row length around a vector's, strides, borders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels.network_cases import PADDED, close, pixels, planes, random_case, written
from kernels.network_cases import convolve as run

from nnz_kernels import cpu, reference
from nnz_kernels.api import ConvSpec
from nnz_kernels.api.conv import ACTIVATIONS
from nnz_kernels.api.pointwise import UnaryKind
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu.depthwise import BoundDepthwise
from nnz_kernels.planes import Grid

BOUNDED = (-1.0, 1.5)

#: Rows of which a vector of 4, 8 or 16 lanes is more, all, or no divisor.
WIDTHS = (*range(1, 18), 33)

#: Size of the kernel and its dilation.
KERNELS = [
    pytest.param(3, 1, id="3x3"),
    pytest.param(5, 1, id="5x5"),
    pytest.param(3, 2, id="3x3 dilated"),
]

#: Border of input and output, in shares of the padding.
BORDERS = [
    pytest.param(((1, 1), (1, 1)), id="flat"),
    pytest.param(((1, 1), (0, 0)), id="by rows"),
    pytest.param(((0, 0), (0, 0)), id="staged"),
    pytest.param(((1, 0), (0, 1)), id="too narrow on one side"),
]


def layer(
    kernel: int, dilation: int, stride: int, channels: int, multiple: int = 1
) -> tuple[ConvSpec, tuple[int, ...], int]:
    """Return spec, shape of the weights and padding that keeps the size."""
    pad = dilation * (kernel // 2)
    spec = ConvSpec(
        (stride, stride), (dilation, dilation), (pad,) * 4, channels, BOUNDED
    )
    return spec, (channels * multiple, 1, kernel, kernel), pad


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_by_hand(kernel: int, stride: int) -> None:
    """The second channel has its middle tap, the first its first one."""
    x = np.arange(2 * 7 * 9, dtype=np.float32).reshape(1, 2, 7, 9)
    weights = np.zeros((2, 1, kernel, kernel), np.float32)
    pad = kernel // 2
    weights[0, 0, 0, 0], weights[1, 0, pad, pad] = 1, 10
    spec = ConvSpec((stride, stride), pads=(pad,) * 4, groups=2)

    y = run(cpu, x, weights, None, spec, borders=((pad, pad), (0, 0)))

    moved = np.zeros((7, 9), np.float32)
    moved[pad:, pad:] = x[0, 0, :-pad, :-pad]
    np.testing.assert_array_equal(y[0, 0], moved[::stride, ::stride])
    np.testing.assert_array_equal(y[0, 1], 10 * x[0, 1, ::stride, ::stride])


@pytest.mark.usefixtures("three_threads")
class TestEqualsReference:
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("borders", BORDERS)
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize(("kernel", "dilation"), KERNELS)
    def test_every_row_length(
        self, kernel: int, dilation: int, stride: int, borders: Any, width: int
    ) -> None:
        """Three images of an odd and an even number of rows, with all that follows."""
        spec, shape, pad = layer(kernel, dilation, stride, 5)
        around = tuple((pad * rows, pad * columns) for rows, columns in borders)
        for height in (5, 6):
            x, weights, bias = random_case(50, (3, 5, height, width), shape, 1.0)
            size = spec.output_size(height, width, (kernel, kernel))
            residual = random_case(51, (3, 5, *size), (1, 1), 1)[0]

            found = [
                run(
                    cpu,
                    x,
                    weights,
                    bias,
                    spec,
                    borders=around,
                    residual=residual,
                    threads=threads,
                )
                for threads in (1, 2, 3)
            ]

            expected = run(reference, x, weights, bias, spec, residual=residual)
            close(found[0], expected, 1e-5)
            np.testing.assert_array_equal(found[1], found[0])
            np.testing.assert_array_equal(found[2], found[0])

    @pytest.mark.parametrize("height", [1, 2])
    @pytest.mark.parametrize("width", [1, 3, 4, 9, 40])
    @pytest.mark.parametrize("stride", [1, 2])
    def test_images_lower_than_the_kernel(
        self, stride: int, width: int, height: int
    ) -> None:
        spec, shape, pad = layer(3, 1, stride, 4)
        x, weights, _ = random_case(52, (2, 4, height, width), shape, 1.0)

        y = run(cpu, x, weights, None, spec, borders=((pad, pad), (pad, pad)))

        close(y, run(reference, x, weights, None, spec), 1e-5)

    @pytest.mark.parametrize("width", [3, 7, 16, 33])
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("multiple", [2, 3])
    def test_several_outputs_of_a_channel(
        self, multiple: int, stride: int, width: int
    ) -> None:
        spec, shape, pad = layer(3, 1, stride, 5, multiple)
        x, weights, bias = random_case(53, (3, 5, 7, width), shape, 1.0)

        for borders in (((pad, pad), (pad, pad)), ((pad, pad), (0, 0)), ((0, 0),) * 2):
            y = run(cpu, x, weights, bias, spec, borders=borders, threads=3)
            close(y, run(reference, x, weights, bias, spec), 1e-5)

    @pytest.mark.parametrize(
        "spec",
        [
            pytest.param(ConvSpec((3, 3), pads=(1, 1, 1, 1), groups=4), id="stride 3"),
            pytest.param(ConvSpec((1, 2), pads=(1, 1, 1, 1), groups=4), id="1 and 2"),
            pytest.param(ConvSpec(pads=(0, 2, 1, 0), groups=4), id="uneven"),
            pytest.param(ConvSpec((2, 2), pads=(0, 0, 1, 1), groups=4), id="same"),
            pytest.param(ConvSpec((2, 2), (1, 3), (1, 3, 1, 3), 4), id="dilations"),
            pytest.param(ConvSpec(groups=4), id="no padding"),
        ],
    )
    @pytest.mark.parametrize("border", [0, 1, 3])
    def test_odd_geometry(self, spec: ConvSpec, border: int) -> None:
        x, weights, bias = random_case(54, (2, 4, 9, 21), (4, 1, 3, 3), 1.0)

        y = run(cpu, x, weights, bias, spec, borders=((border, border), (0, 0)))

        close(y, run(reference, x, weights, bias, spec), 1e-5)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("width", [2, 5, 9, 19, 33])
@pytest.mark.parametrize("borders", BORDERS)
def test_residual_may_be_the_output(borders: Any, width: int, threads: int) -> None:
    spec = replace(PADDED, groups=4, clamp=BOUNDED)
    x, weights, bias = random_case(55, (3, 4, 6, width), (4, 1, 3, 3), 1.0)
    xg, yg = (Grid(3, 6, width, *border) for border in borders)
    conv = cpu.prepare_conv(weights, bias, spec, block=None)
    bound = conv.bind(xg, yg, threads=threads)
    residual = np.ascontiguousarray(x[:, ::-1])
    y, scratch = planes(residual, yg), np.full(bound.scratch, np.nan, np.float32)
    call = bound.attach(planes(x, xg), y, y, scratch)
    expected = run(reference, x, weights, bias, spec, residual=residual)

    call()
    close(pixels(y, yg, 4), expected, 1e-5)

    again = pixels(y, yg, 4)
    call()  # what is added is what the buffer holds then
    expected = run(reference, x, weights, bias, spec, residual=again)
    close(pixels(y, yg, 4), expected, 1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("width", [5, 19])
@pytest.mark.parametrize("borders", BORDERS)
def test_special_values(borders: Any, width: int, stride: int) -> None:
    """They stay in the windows, the images and the channels that hold them."""
    spec = replace(PADDED, groups=4, strides=(stride, stride), clamp=(0.0, 1.0))
    x, weights, bias = random_case(56, (3, 4, 6, width), (4, 1, 3, 3), 1.0)
    x[0, 1, 5, 0], x[1, 2, 0, width - 1], x[2, 3, 3, 3] = np.nan, np.inf, -np.inf

    y = run(cpu, x, weights, bias, spec, borders=borders)

    with np.errstate(invalid="ignore"):
        close(y, run(reference, x, weights, bias, spec), 1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("width", [2, 5, 17, 33])
def test_activation(width: int, stride: int, activation: UnaryKind) -> None:
    """It has the same bits whichever way the planes are read."""
    spec = ConvSpec((stride, stride), (1, 1), (1, 1, 1, 1), 4, (-4.0, 3.0), activation)
    x, weights, bias = random_case(59, (3, 4, 6, width), (4, 1, 3, 3), 1.0)
    expected = run(reference, x, weights, bias, spec)

    found = [
        run(cpu, x, weights, bias, spec, borders=borders)
        for borders in (((1, 1), (1, 1)), ((1, 1), (0, 0)), ((0, 0), (0, 0)))
    ]

    close(found[0], expected, 1e-5)
    for y in found[1:]:
        np.testing.assert_array_equal(y, found[0])


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("width", [1, 3, 6, 17])
def test_an_image_gives_the_same_bits_in_any_batch(
    width: int, activation: UnaryKind | None
) -> None:
    spec = replace(PADDED, groups=6, activation=activation)
    x, weights, bias = random_case(57, (8, 6, 7, width), (6, 1, 3, 3), 1.0)
    borders = ((1, 1), (1, 1))

    together = run(cpu, x, weights, bias, spec, borders=borders)

    for image in range(8):
        alone = run(cpu, x[image : image + 1], weights, bias, spec, borders=borders)
        np.testing.assert_array_equal(alone[0], together[image])


class TestBind:
    def bound(self, x: Grid, y: Grid, spec: ConvSpec, kernel: int = 3) -> Any:
        weights = np.ones((4, 1, kernel, kernel), np.float32)
        return cpu.prepare_conv(weights, None, spec, block=4).bind(x, y)

    def test_reads_planes_in_place(self) -> None:
        same = replace(PADDED, groups=4)
        half = replace(same, strides=(2, 2))

        in_place = [
            self.bound(Grid(1, 8, 8, 1, 1), Grid(1, 8, 8, 1, 1), same),
            self.bound(Grid(3, 2, 2, 1, 1), Grid(3, 2, 2, 1, 1), same),
            self.bound(Grid(1, 8, 8, 1, 1), Grid(1, 8, 8), same),
            self.bound(Grid(2, 8, 8, 1, 1), Grid(2, 4, 4), half),
        ]

        assert all(isinstance(bound, BoundDepthwise) for bound in in_place)
        assert [bound.flat for bound in in_place] == [True, True, False, False]
        assert not any(bound.scratch for bound in in_place)

    def test_stages_what_it_cannot_read_in_place(self) -> None:
        same = replace(PADDED, groups=4)
        staged = [
            self.bound(Grid(1, 8, 8), Grid(1, 8, 8), same),
            self.bound(
                Grid(1, 8, 8, 1, 1), Grid(1, 3, 3), replace(same, strides=(3, 3))
            ),
            self.bound(
                Grid(1, 6, 6, 1, 1), Grid(1, 3, 3), replace(same, strides=(2, 2))
            ),
        ]

        for bound in staged:
            assert not isinstance(bound, BoundDepthwise)
            assert bound.scratch > 0

    def test_never_more_threads_than_channels(self, three_threads: None) -> None:
        grid = Grid(1, 30, 30, 1, 1)
        weights = np.ones((2, 1, 3, 3), np.float32)
        conv = cpu.prepare_conv(weights, None, replace(PADDED, groups=2), block=None)

        assert conv.bind(grid, grid, threads=3).threads == 2


def test_one_call_serves_any_content() -> None:
    """An attached call reads what its buffers hold when it is called."""
    spec, grid = replace(PADDED, groups=3), Grid(2, 5, 9, 1, 1)
    x, weights, bias = random_case(58, (2, 3, 5, 9), (3, 1, 3, 3), 1.0)
    bound = cpu.prepare_conv(weights, bias, spec, block=None).bind(grid, grid)
    laid, nothing = planes(x, grid), np.empty(0, np.float32)

    def twice(y: HostArray) -> None:
        call = bound.attach(laid, y, None, nothing)
        call()
        laid[:] = planes(x[::-1], grid)
        call()

    close(written(grid, 3, twice), run(reference, x[::-1], weights, bias, spec), 1e-5)
