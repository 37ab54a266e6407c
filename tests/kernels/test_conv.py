from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
from kernels.network_cases import close, planes, written

from nnz_kernels import reference
from nnz_kernels.api import ConvSpec, Kernels
from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.planes import Grid, token_grid

BLOCKS = (None, 1, 2, 4, 8, 16)
PLAIN = ConvSpec()
PADDED = ConvSpec(pads=(1, 1, 1, 1))
NAN = float("nan")

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


def run(
    kernels: Kernels[Any],
    x: HostArray,
    weights: HostArray,
    bias: HostArray | None = None,
    spec: ConvSpec = PLAIN,
    *,
    block: int | None = None,
    borders: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    residual: HostArray | None = None,
    threads: int = 1,
) -> HostArray:
    """Convolve ``[n, c, h, w]``; scratch is full of NaN."""
    n, _, h, w = x.shape
    size = spec.output_size(h, w, weights.shape[2:])
    xg, yg = Grid(n, h, w, *borders[0]), Grid(n, *size, *borders[1])
    conv = kernels.prepare_conv(weights, bias, spec, block=block).bind(xg, yg)
    scratch = np.full(conv.scratch, np.nan, np.float32)
    added = None if residual is None else planes(residual, yg)
    laid = planes(x, xg)
    return written(
        yg,
        weights.shape[0],
        lambda y: conv.run(laid, y, added, scratch, threads=threads),
    )


def array(values: Any, *shape: int) -> HostArray:
    return np.array(values, np.float32).reshape(shape)


def random_case(
    seed: int, x: tuple[int, ...], weights: tuple[int, ...], density: float
) -> tuple[HostArray, HostArray, HostArray]:
    rng = np.random.default_rng(seed)
    kept = rng.random(weights) < density
    return (
        rng.standard_normal(x).astype(np.float32),
        (rng.standard_normal(weights) * kept).astype(np.float32),
        rng.standard_normal(weights[0]).astype(np.float32),
    )


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
        y = written(grid, 3, lambda y: conv.run(x, y, None, scratch, threads=1))

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


class TestFewPixels:
    """Fully connected layers at small batches, which the cpu turns around."""

    @pytest.mark.parametrize("tokens", range(1, 10))
    @pytest.mark.parametrize("outputs", [1, 17, 130])
    @pytest.mark.parametrize("threads", [1, 2])
    def test_tokens(
        self, kernels: Kernels[Any], tokens: int, outputs: int, threads: int
    ) -> None:
        x, weights, bias = random_case(13, (1, 33, 1, tokens), (outputs, 33, 1, 1), 0.8)
        residual = np.full((1, outputs, 1, tokens), 0.5, np.float32)
        spec = ConvSpec(clamp=(-1.0, 2.0))

        y = run(kernels, x, weights, bias, spec, residual=residual, threads=threads)

        close(y, run(reference, x, weights, bias, spec, residual=residual))

    @pytest.mark.parametrize("borders", [((0, 0), (1, 1)), ((2, 1), (0, 0))])
    def test_images_of_one_pixel(self, kernels: Kernels[Any], borders: Any) -> None:
        x, weights, bias = random_case(14, (3, 17, 1, 1), (20, 17, 1, 1), 1.0)

        y = run(kernels, x, weights, bias, borders=borders)

        close(y, run(reference, x, weights, bias))

    def test_residual_may_be_the_output(self, kernels: Kernels[Any]) -> None:
        x, weights, bias = random_case(15, (2, 5, 1, 1), (5, 5, 1, 1), 1.0)
        grid = Grid(2, 1, 1, 1, 1)
        conv = kernels.prepare_conv(weights, bias, PLAIN, block=None).bind(grid, grid)
        y, scratch = planes(x, grid), np.empty(conv.scratch, np.float32)

        conv.run(planes(x, grid), y, y, scratch, threads=1)

        expected = run(reference, x, weights, bias, residual=x)
        close(grid.view(y, 5).transpose(1, 0, 2, 3), expected)

    def test_nan_stays_with_its_token(self, kernels: Kernels[Any]) -> None:
        x, weights, bias = random_case(16, (1, 5, 1, 4), (3, 5, 1, 1), 1.0)
        x[0, 2, 0, 1] = NAN

        y = run(kernels, x, weights, bias, ConvSpec(clamp=(0.0, 1.0)))

        assert np.isnan(y[0]).all(axis=(0, 1)).tolist() == [False, True, False, False]


class TestSpecialValues:
    @pytest.mark.parametrize("block", BLOCKS)
    def test_all_zero_weights(self, kernels: Kernels[Any], block: int | None) -> None:
        """Nothing is left but the bias."""
        x, weights, bias = random_case(6, (1, 5, 7, 7), (9, 5, 3, 3), 0.0)

        y = run(kernels, x, weights, bias, PADDED, block=block)

        assert (y == bias[:, None, None]).all()

    @pytest.mark.parametrize("block", [1, 2, 4, 8, 16])
    def test_empty_columns_are_not_read(
        self, kernels: Kernels[Any], block: int
    ) -> None:
        """A channel whose weights are all zero may hold NaN."""
        x, weights, bias = random_case(7, (1, 5, 7, 7), (9, 5, 3, 3), 0.7)
        weights[:, 2], x[:, 2] = 0, NAN

        y = run(kernels, x, weights, bias, PADDED, block=block)

        assert np.isfinite(y).all()

    @pytest.mark.parametrize("block", BLOCKS)
    def test_nan_passes_bias_residual_and_clamp(
        self, kernels: Kernels[Any], block: int | None
    ) -> None:
        """A NaN reaches exactly the pixels whose windows hold it."""
        x, weights, bias = random_case(8, (1, 2, 9, 9), (3, 2, 3, 3), 1.0)
        x[0, 1, 4, 4] = NAN
        spec = replace(PADDED, clamp=(0.0, 1.0))

        y = run(kernels, x, weights, bias, spec, block=block, borders=((1, 1), (1, 1)))

        expected = np.zeros((3, 9, 9), bool)
        expected[:, 3:6, 3:6] = True
        assert (np.isnan(y[0]) == expected).all()

    @pytest.mark.parametrize("block", BLOCKS)
    def test_nan_stays_in_its_group(
        self, kernels: Kernels[Any], block: int | None
    ) -> None:
        x, weights, bias = random_case(9, (1, 6, 5, 5), (6, 2, 1, 1), 1.0)
        x[0, 0] = NAN

        y = run(kernels, x, weights, bias, ConvSpec(groups=3), block=block)

        assert np.isnan(y[0, :2]).all()
        assert np.isfinite(y[0, 2:]).all()

    @pytest.mark.parametrize("groups", [1, 4])
    def test_residual_may_be_the_output(
        self, kernels: Kernels[Any], groups: int
    ) -> None:
        x, weights, bias = random_case(10, (1, 4, 6, 6), (4, 4 // groups, 3, 3), 1.0)
        grid = Grid(1, 6, 6, 1, 1)
        spec = replace(PADDED, groups=groups)
        conv = kernels.prepare_conv(weights, bias, spec, block=None).bind(grid, grid)
        y, scratch = planes(x, grid), np.empty(conv.scratch, np.float32)

        conv.run(planes(x, grid), y, y, scratch, threads=1)

        expected = run(reference, x, weights, bias, spec, residual=x)
        close(grid.view(y, 4).transpose(1, 0, 2, 3), expected)

    def test_read_only_input(self, kernels: Kernels[Any]) -> None:
        x, weights, bias = random_case(11, (1, 3, 5, 5), (2, 3, 1, 1), 1.0)
        grid = Grid(1, 5, 5)
        conv = kernels.prepare_conv(weights, bias, PLAIN, block=None).bind(grid, grid)
        laid = planes(x, grid)
        laid.flags.writeable = False

        nothing = np.empty(conv.scratch, np.float32)
        y = written(grid, 2, lambda y: conv.run(laid, y, None, nothing, threads=1))

        close(y, run(reference, x, weights, bias))


class TestPrepared:
    @pytest.mark.parametrize(
        ("block", "kernel", "nnz"),
        [(None, "dense", 12), (1, "spmm_b1", 2), (2, "spmm_b2", 4), (4, "spmm_b4", 6)],
    )
    def test_counts_what_is_multiplied(
        self, kernels: Kernels[Any], block: int | None, kernel: str, nnz: int
    ) -> None:
        """Zeros in a kept block count; rows beyond the last do not."""
        weights = array([1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], 6, 2, 1, 1)

        conv = kernels.prepare_conv(weights, None, PLAIN, block=block)

        expected = {4: 8}.get(block or 0, nnz)
        assert (conv.kernel, conv.block, conv.nnz) == (kernel, block, expected)
        assert conv.density == pytest.approx(expected / 12)
        assert conv.nbytes >= 4 * expected

    def test_depthwise_has_its_own_kernel(self, kernels: Kernels[Any]) -> None:
        weights = np.ones((4, 1, 3, 3), np.float32)

        conv = kernels.prepare_conv(weights, None, ConvSpec(groups=4), block=4)

        assert (conv.kernel, conv.nnz, conv.density) == ("depthwise", 36, 1.0)

    def test_fewer_weights_take_fewer_bytes(self, kernels: Kernels[Any]) -> None:
        if kernels is reference:
            pytest.skip("the reference keeps dense weights")
        _, weights, _ = random_case(12, (1, 1, 1, 1), (64, 64, 3, 3), 0.05)

        sparse, dense = (
            kernels.prepare_conv(weights, None, PADDED, block=block).nbytes
            for block in (1, None)
        )

        assert sparse < dense / 5


class TestRefuses:
    def test_shapes_of_weights(self, kernels: Kernels[Any]) -> None:
        ones = np.ones((4, 2, 3, 3), np.float32)

        with pytest.raises(ShapeError, match="must be \\(oc, ic/groups, kh, kw\\)"):
            kernels.prepare_conv(ones[0], None, PLAIN, block=None)
        with pytest.raises(ShapeError, match="do not divide into 3 groups"):
            kernels.prepare_conv(ones, None, ConvSpec(groups=3), block=None)
        with pytest.raises(ShapeError, match="bias must be \\(4,\\)"):
            kernels.prepare_conv(ones, np.ones(3, np.float32), PLAIN, block=None)
        with pytest.raises(ShapeError, match="block must be None or one of"):
            kernels.prepare_conv(ones, None, PLAIN, block=3)
        with pytest.raises(DTypeError, match="float64"):
            kernels.prepare_conv(ones.astype(np.float64), None, PLAIN, block=None)

    def test_grids_that_do_not_fit(self, kernels: Kernels[Any]) -> None:
        weights = np.ones((1, 1, 3, 3), np.float32)
        conv = kernels.prepare_conv(weights, None, PADDED, block=None)

        with pytest.raises(ShapeError, match="1 of 5x5, but the output grid is for"):
            conv.bind(Grid(1, 5, 5), Grid(1, 4, 5))
        with pytest.raises(ShapeError, match="larger than the padded image"):
            kernels.prepare_conv(weights, None, PLAIN, block=None).bind(
                Grid(1, 2, 2), Grid(1, 1, 1)
            )

    def test_short_buffers(self, kernels: Kernels[Any]) -> None:
        grid = Grid(1, 5, 5)
        weights = np.ones((2, 2, 1, 1), np.float32)
        conv = kernels.prepare_conv(weights, None, PLAIN, block=None).bind(grid, grid)
        good, short = np.zeros(grid.size(2), np.float32), np.zeros(9, np.float32)

        with pytest.raises(ShapeError, match="x must be a flat buffer"):
            conv.run(short, good, None, short, threads=1)
        with pytest.raises(ShapeError, match="y must be a flat buffer"):
            conv.run(good, short, None, short, threads=1)
        with pytest.raises(ShapeError, match="residual must be a flat buffer"):
            conv.run(good, good.copy(), short, short, threads=1)
        with pytest.raises(DTypeError, match="float64"):
            conv.run(good.astype(np.float64), good, None, short, threads=1)

    @pytest.mark.parametrize(
        "wrong", [{"strides": (0, 1)}, {"dilations": (1, 0)}, {"groups": 0}]
    )
    def test_specs_that_no_convolution_has(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ShapeError, match="must be >= 1"):
            ConvSpec(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cpu", "features", "lanes"),
    [
        pytest.param("x86-64-v3", "+avx2,+fma,+avx,+sse4.2", 8, id="8 lanes"),
        pytest.param("x86-64-v2", "+sse4.2,+sse4.1,+ssse3", 4, id="4 lanes"),
    ],
)
def test_shorter_vectors(cpu: str, features: str, lanes: int, tmp_path: Path) -> None:
    """The same tests pass when the kernels are compiled for smaller machines."""
    if platform.machine() != "x86_64":
        pytest.skip("the names are those of x86-64 processors")
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    ask = "from nnz_kernels.cpu._simd import LANES; print(LANES)"
    tests = [__file__, "-q", "-x", "-p", "no:cacheprovider", "-k", "cpu or planes"]

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    assert python("-c", ask).stdout.strip() == str(lanes)
    done = python("-m", "pytest", *tests)
    assert done.returncode == 0, done.stdout[-2000:]
