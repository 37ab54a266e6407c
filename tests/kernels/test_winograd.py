"""Transformed 3x3 convolutions equal the reference, whatever the grids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernels.network_cases import (
    PADDED,
    PLAIN,
    close,
    convolve,
    pixels,
    planes,
    random_case,
    written,
)

from nnz_kernels import cpu, reference
from nnz_kernels.api import ConvSpec
from nnz_kernels.api.conv import ACTIVATIONS
from nnz_kernels.api.pointwise import UnaryKind
from nnz_kernels.arrays import HostArray
from nnz_kernels.cpu.winograd import Winograd
from nnz_kernels.planes import Grid

pytestmark = pytest.mark.usefixtures("three_threads")

BOUNDED = (-1.0, 1.5)


def case(
    shape: tuple[int, int, int, int], outputs: int, seed: int = 1
) -> tuple[HostArray, HostArray, HostArray]:
    return random_case(seed, shape, (outputs, shape[1], 3, 3), 1.0)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    "borders", [((1, 1), (0, 0)), ((1, 1), (2, 3)), ((3, 2), (1, 1))]
)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "size",
    [(1, 1), (2, 2), (7, 7), (5, 9), (8, 15), (9, 16), (14, 14), (4, 33), (21, 70)],
)
def test_every_size(
    size: tuple[int, int],
    batch: int,
    borders: tuple[tuple[int, int], tuple[int, int]],
    threads: int,
) -> None:
    """Odd rows and columns, rows of fewer tiles than lanes, borders of any width."""
    x, weights, bias = case((batch, 9, *size), 13)

    y = convolve(
        cpu, x, weights, bias, PADDED, tiling="winograd", borders=borders,
        threads=threads,
    )  # fmt: skip

    close(y, convolve(reference, x, weights, bias, PADDED), 1e-5)


@pytest.mark.parametrize("border", [0, 1, 2])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (2, 0, 1, 2), (0, 1, 2, 0)])
def test_any_padding(pads: tuple[int, int, int, int], border: int) -> None:
    """Where the border does not hold the padding, the input is copied first."""
    x, weights, bias = case((2, 8, 11, 19), 8)
    spec = ConvSpec(pads=pads)
    borders = ((border, border), (0, 0))

    y = convolve(cpu, x, weights, bias, spec, tiling="winograd", borders=borders)

    close(y, convolve(reference, x, weights, bias, spec), 1e-5)


@pytest.mark.parametrize("width", [6, 15, 16, 18, 40])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_residual_clamp_and_activation(
    activation: UnaryKind | None, width: int
) -> None:
    x, weights, bias = case((2, 8, 5, width), 9)
    residual = case((2, 9, 5, width), 1, seed=2)[0]
    spec = replace(PADDED, clamp=BOUNDED, activation=activation)
    grids = ((1, 1), (1, 1))

    y = convolve(
        cpu, x, weights, bias, spec, tiling="winograd", borders=grids,
        residual=residual,
    )  # fmt: skip

    expected = convolve(reference, x, weights, bias, spec, residual=residual)
    close(y, expected, 1e-5)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("width", [7, 16, 18, 40, 48, 80])
def test_residual_may_be_the_output(width: int, threads: int) -> None:
    x, weights, bias = case((2, 8, 5, width), 8)
    grid = Grid(2, 5, width, 1, 1)
    prepared = cpu.prepare_conv(weights, bias, PADDED, block=None, tiling="winograd")
    conv = prepared.bind(grid, grid, threads=threads)
    y = planes(x[:, ::-1], grid)

    conv.run(planes(x, grid), y, y, np.full(conv.scratch, np.nan, np.float32))

    added = np.ascontiguousarray(x[:, ::-1])
    expected = convolve(reference, x, weights, bias, PADDED, residual=added)
    close(pixels(y, grid, 8), expected, 1e-5)


def test_batch_and_threads_change_no_bit() -> None:
    x, weights, bias = case((5, 13, 9, 22), 21)
    grids = ((1, 1), (1, 1))

    def run(images: HostArray, threads: int) -> HostArray:
        return convolve(
            cpu, images, weights, bias, PADDED, tiling="winograd", borders=grids,
            threads=threads,
        )  # fmt: skip

    together = run(x, 1)

    np.testing.assert_array_equal(run(x, 3), together)
    for image in range(5):
        alone = run(x[image : image + 1], 2)
        np.testing.assert_array_equal(alone[0], together[image])


def test_nan_stays_near_its_pixel() -> None:
    x, weights, bias = case((1, 8, 12, 40), 8)
    x[0, 3, 5, 20] = np.nan
    spec = replace(PADDED, clamp=(0.0, 6.0))

    y = convolve(
        cpu, x, weights, bias, spec, tiling="winograd", borders=((1, 1), (1, 1))
    )

    expected = convolve(reference, x, weights, bias, spec)
    assert np.isnan(y[np.isnan(expected)]).all()
    far = np.ones((12, 40), bool)
    far[2:9, 17:24] = False
    close(y[..., far], expected[..., far], 1e-5)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("width", [7, 16, 18, 40, 48])
def test_nothing_is_written_outside(width: int, batch: int, threads: int) -> None:
    """Without borders the next row, plane or buffer begins right behind a row."""
    x, weights, bias = case((batch, 8, 7, width), 8)
    grid, narrow = Grid(batch, 7, width, 1, 1), Grid(batch, 7, width)
    prepared = cpu.prepare_conv(weights, bias, PADDED, block=None, tiling="winograd")
    conv = prepared.bind(grid, narrow, threads=threads)
    laid, scratch = planes(x, grid), np.full(conv.scratch, np.nan, np.float32)

    y = written(narrow, 8, lambda out: conv.run(laid, out, None, scratch))

    close(y, convolve(reference, x, weights, bias, PADDED), 1e-5)


class TestPrepared:
    def test_says_what_it_holds(self) -> None:
        weights = np.ones((8, 16, 3, 3), np.float32)

        conv = cpu.prepare_conv(weights, None, PADDED, block=None, tiling="winograd")

        assert (conv.kernel, conv.block, conv.density) == ("dense_winograd", None, 1.0)
        assert conv.nnz == weights.size
        assert conv.nbytes >= 16 / 9 * weights.nbytes
        assert conv.retiled("winograd") is conv
        assert conv.retiled("panel") is None

    @pytest.mark.parametrize(
        ("shape", "spec", "block"),
        [
            pytest.param((8, 8, 3, 3), PADDED, 4, id="sparse"),
            pytest.param((8, 8, 1, 1), PLAIN, None, id="1x1"),
            pytest.param((8, 8, 3, 3), ConvSpec(strides=(2, 2)), None, id="stride"),
            pytest.param((8, 8, 3, 3), ConvSpec(dilations=(2, 2)), None, id="dilation"),
            pytest.param((16, 8, 3, 3), ConvSpec(groups=2), None, id="groups"),
            pytest.param((8, 4, 3, 3), PADDED, None, id="few channels"),
        ],
    )
    def test_other_layers_run_directly(
        self, shape: tuple[int, ...], spec: ConvSpec, block: int | None
    ) -> None:
        weights = np.ones(shape, np.float32)

        conv = cpu.prepare_conv(weights, None, spec, block=block, tiling="winograd")

        assert not isinstance(conv, Winograd)
        assert "winograd" not in cpu.tilings(shape, spec, block, 1000)

    def test_infinite_weights_run_directly(self) -> None:
        weights = np.ones((8, 8, 3, 3), np.float32)
        weights[0, 0, 0, 0] = np.inf

        conv = cpu.prepare_conv(weights, None, PADDED, block=None, tiling="winograd")

        assert conv.kernel == "dense"

    def test_is_worth_measuring_on_planes(self) -> None:
        assert cpu.tilings((8, 8, 3, 3), PADDED, None, 49)[-1] == "winograd"
        assert "winograd" not in cpu.tilings((8, 8, 3, 3), PADDED, None, 16)
