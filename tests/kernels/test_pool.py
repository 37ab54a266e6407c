from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.network_cases import close, planes, written

from nnz_kernels import reference
from nnz_kernels.api import Kernels, PoolSpec
from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import Grid, token_grid

OPS = ("max_pool", "average_pool")
SPECS = [
    pytest.param(PoolSpec((2, 2), (2, 2)), (6, 4), id="2x2"),
    pytest.param(PoolSpec((3, 3), (2, 2), (1, 1, 1, 1)), (7, 5), id="3x3 stride 2"),
    pytest.param(PoolSpec((3, 3), (1, 1), (1, 0, 1, 2)), (13, 9), id="uneven"),
    pytest.param(PoolSpec((3, 2), (3, 3), (1, 1, 1, 1)), (5, 4), id="stride 3"),
    pytest.param(PoolSpec((2, 3), (1, 1), (0,) * 4, (3, 2)), (10, 5), id="dilation"),
    pytest.param(PoolSpec((3, 3), (2, 2)), (7, 5), id="rounded up"),
]


def pool(
    kernels: Kernels[Any],
    name: str,
    x: HostArray,
    spec: PoolSpec,
    size: tuple[int, int],
    border: int = 0,
    threads: int = 1,
) -> HostArray:
    n, c, h, w = x.shape
    xg, yg = Grid(n, h, w, border, border), Grid(n, *size, border, border)
    laid, op = planes(x, xg), getattr(kernels, name)
    return written(yg, c, lambda y: op(laid, xg, y, yg, c, spec, threads=threads))


def values(*shape: int, seed: int = 0) -> HostArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class TestByHand:
    def test_largest_of_each_square(self, kernels: Kernels[Any]) -> None:
        x = -np.arange(1, 9, dtype=np.float32).reshape(1, 1, 2, 4)

        y = pool(kernels, "max_pool", x, PoolSpec((2, 2), (2, 2)), (1, 2))

        assert y.tolist() == [[[[-1, -3]]]]

    def test_padding_is_never_the_largest(self, kernels: Kernels[Any]) -> None:
        """All values are negative, and the border of the planes holds zeros."""
        x = np.array([-1, -2, -3], np.float32).reshape(1, 1, 1, 3)

        y = pool(
            kernels,
            "max_pool",
            x,
            PoolSpec((1, 3), pads=(0, 1, 0, 1)),
            (1, 3),
            border=1,
        )

        assert y.tolist() == [[[[-1, -1, -2]]]]

    @pytest.mark.parametrize(
        ("counted", "expected"), [(False, [1.5, 2, 2.5]), (True, [1, 2, 5 / 3])]
    )
    def test_mean_with_and_without_padding(
        self, kernels: Kernels[Any], counted: bool, expected: list[float]
    ) -> None:
        x = np.array([1, 2, 3], np.float32).reshape(1, 1, 1, 3)
        spec = PoolSpec((1, 3), pads=(0, 1, 0, 1), count_include_pad=counted)

        y = pool(kernels, "average_pool", x, spec, (1, 3))

        close(y[0, 0, 0], np.array(expected, np.float32), 1e-6)

    def test_places_beyond_the_padding_never_count(self, kernels: Kernels[Any]) -> None:
        """Rounded up: the second window holds one pixel, one pad, one place beyond."""
        x = np.array([1, 2, 6], np.float32).reshape(1, 1, 1, 3)
        spec = PoolSpec((1, 3), (1, 2), (0, 0, 0, 1), count_include_pad=True)

        y = pool(kernels, "average_pool", x, spec, (1, 2))

        assert y.tolist() == [[[[3, 3]]]]

    def test_mean_of_each_image(self, kernels: Kernels[Any]) -> None:
        x = np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2)
        xg, yg = Grid(2, 2, 2, 1, 1), token_grid(2)
        laid = planes(x, xg)

        y = written(
            yg,
            2,
            lambda y: kernels.global_average_pool(laid, xg, y, yg, 2, threads=1),
        )

        assert y.tolist() == [[[[1.5, 9.5]], [[5.5, 13.5]]]]


class TestEqualsReference:
    @pytest.mark.parametrize("name", OPS)
    @pytest.mark.parametrize(("spec", "size"), SPECS)
    @pytest.mark.parametrize("counted", [False, True])
    @pytest.mark.parametrize("border", [0, 2])
    @pytest.mark.parametrize("threads", [1, 2])
    def test_windows(
        self,
        kernels: Kernels[Any],
        name: str,
        spec: PoolSpec,
        size: tuple[int, int],
        counted: bool,
        border: int,
        threads: int,
    ) -> None:
        x = values(3, 17, 13, 9)
        spec = PoolSpec(spec.kernel, spec.strides, spec.pads, spec.dilations, counted)

        y = pool(kernels, name, x, spec, size, border, threads)

        close(y, pool(reference, name, x, spec, size), 1e-5)

    @pytest.mark.parametrize("size", [(1, 1), (7, 7), (13, 33)])
    def test_global(self, kernels: Kernels[Any], size: tuple[int, int]) -> None:
        x, xg, yg = values(3, 33, *size), Grid(3, *size, 1, 1), Grid(3, 1, 1)
        laid = planes(x, xg)

        y = written(
            yg,
            33,
            lambda y: kernels.global_average_pool(laid, xg, y, yg, 33, threads=1),
        )

        close(y[:, :, 0, 0], x.mean(axis=(2, 3)), 1e-5)

    @pytest.mark.parametrize("name", OPS)
    def test_nan_fills_its_windows_and_no_other(
        self, kernels: Kernels[Any], name: str
    ) -> None:
        x = values(1, 1, 8, 8)
        x[0, 0, 3, 3] = np.nan

        y = pool(kernels, name, x, PoolSpec((3, 3), pads=(1, 1, 1, 1)), (8, 8))

        expected = np.zeros((8, 8), bool)
        expected[2:5, 2:5] = True
        assert (np.isnan(y[0, 0]) == expected).all()


class TestRefuses:
    @pytest.mark.parametrize("name", OPS)
    def test_an_output_that_is_too_large(
        self, kernels: Kernels[Any], name: str
    ) -> None:
        with pytest.raises(ShapeError, match="output of 4x4 does not fit"):
            pool(kernels, name, values(1, 1, 6, 6), PoolSpec((2, 2), (2, 2)), (4, 4))

    def test_another_batch(self, kernels: Kernels[Any]) -> None:
        xg, yg = Grid(2, 3, 3), Grid(1, 3, 3)
        x, y = planes(values(2, 1, 3, 3), xg), np.empty(yg.size(1), np.float32)

        with pytest.raises(ShapeError, match="keeps the batch"):
            kernels.max_pool(x, xg, y, yg, 1, PoolSpec((1, 1)), threads=1)
        with pytest.raises(ShapeError, match="2 images give 2 pixels"):
            kernels.global_average_pool(x, xg, y, yg, 1, threads=1)

    def test_a_window_of_nothing(self) -> None:
        with pytest.raises(ShapeError, match="must be >= 1"):
            PoolSpec((0, 3))
