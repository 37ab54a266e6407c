from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
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
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.planes import Grid

NAN = float("nan")


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

        conv.run(planes(x, grid), y, y, scratch)

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

        conv.run(planes(x, grid), y, y, scratch)

        expected = run(reference, x, weights, bias, spec, residual=x)
        close(grid.view(y, 4).transpose(1, 0, 2, 3), expected)

    def test_read_only_input(self, kernels: Kernels[Any]) -> None:
        x, weights, bias = random_case(11, (1, 3, 5, 5), (2, 3, 1, 1), 1.0)
        grid = Grid(1, 5, 5)
        conv = kernels.prepare_conv(weights, bias, PLAIN, block=None).bind(grid, grid)
        laid = planes(x, grid)
        laid.flags.writeable = False

        nothing = np.empty(conv.scratch, np.float32)
        y = written(grid, 2, lambda y: conv.run(laid, y, None, nothing))

        close(y, run(reference, x, weights, bias))


@pytest.mark.parametrize("block", [None, 4])
def test_one_bound_convolution_serves_many_threads(
    kernels: Kernels[Any], block: int | None
) -> None:
    """Runs with buffers of their own do not disturb each other."""
    spec = replace(PADDED, strides=(2, 2))
    x, weights, bias = random_case(17, (1, 16, 40, 40), (24, 16, 3, 3), 0.5)
    xg, yg = Grid(1, 40, 40, 1, 1), Grid(1, 20, 20, 1, 1)
    conv = kernels.prepare_conv(weights, bias, spec, block=block).bind(
        xg, yg, threads=2
    )
    laid = planes(x, xg)

    def once(_: int) -> bytes:
        y, scratch = np.empty(yg.size(24), "f4"), np.empty(conv.scratch, "f4")
        conv.run(laid, y, None, scratch)
        return y.tobytes()

    with ThreadPoolExecutor(4) as pool:
        results = set(pool.map(once, range(16)))

    assert results == {once(0)}


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
            conv.run(short, good, None, short)
        with pytest.raises(ShapeError, match="y must be a flat buffer"):
            conv.run(good, short, None, short)
        with pytest.raises(ShapeError, match="residual must be a flat buffer"):
            conv.run(good, good.copy(), short, short)
        with pytest.raises(DTypeError, match="float64"):
            conv.run(good.astype(np.float64), good, None, short)

    @pytest.mark.parametrize(
        "wrong", [{"strides": (0, 1)}, {"dilations": (1, 0)}, {"groups": 0}]
    )
    def test_specs_that_no_convolution_has(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ShapeError, match="must be >= 1"):
            ConvSpec(**wrong)
