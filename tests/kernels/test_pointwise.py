from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.network_cases import close, pixels, planes, written

from nnz_kernels import reference
from nnz_kernels.api import Kernels
from nnz_kernels.api.pointwise import UNARY_KINDS, ZERO_KEEPING_KINDS, UnaryKind
from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import ShapeError
from nnz_kernels.planes import Grid, token_grid

NAN, INF = float("nan"), float("inf")
GRIDS = [
    pytest.param(Grid(1, 7, 7), id="no border"),
    pytest.param(Grid(3, 13, 5, 2, 1), id="batch"),
    pytest.param(Grid(1, 1, 37), id="tokens"),
    pytest.param(Grid(3, 1, 1, 1, 1), id="single pixels"),
]


def apply(
    kernels: Kernels[Any], kind: UnaryKind, x: HostArray, alpha: float, beta: float
) -> HostArray:
    y = np.empty_like(x)
    kernels.unary(kind, x, y, alpha=alpha, beta=beta)
    return y


def values(*shape: int) -> HostArray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


class TestUnary:
    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("relu", [0, 0, 2]),
            ("clip", [0.25, 0.25, 0.5]),
            ("leaky_relu", [-0.5, 0, 2]),
            ("neg", [2, 0, -2]),
            ("abs", [2, 0, 2]),
            ("hard_sigmoid", [0, 0.5, 1]),
            ("hard_swish", [-1 / 3, 0, 5 / 3]),
            ("sigmoid", [0.11920292, 0.5, 0.88079708]),
            ("silu", [-0.23840584, 0, 1.76159416]),
            ("erf", [-0.99532227, 0, 0.99532227]),
            ("gelu", [-0.04550026, 0, 1.95449974]),
            ("gelu_tanh", [-0.04540231, 0, 1.95459769]),
            ("reciprocal", [-0.5, INF, 0.5]),
        ],
    )
    def test_by_hand(
        self, kernels: Kernels[Any], kind: UnaryKind, expected: list[float]
    ) -> None:
        x = np.array([-2, 0, 2], np.float32)

        y = apply(kernels, kind, x, 0.25, 0.5)

        close(y, np.array(expected, np.float32), 2e-6)

    @pytest.mark.parametrize("kind", UNARY_KINDS)
    def test_equals_reference(self, kernels: Kernels[Any], kind: UnaryKind) -> None:
        """Over all magnitudes, and at the ends of float32."""
        special = [0, -0.0, 89, -89, 104, -104, 1e-30, 1e30, -1e30, INF, -INF, NAN]
        x = np.concatenate([values(999) * 3, np.array(special)]).astype(np.float32)

        y = apply(kernels, kind, x, 0.2, 0.5)

        close(y, apply(reference, kind, x, 0.2, 0.5), 2e-6)

    @pytest.mark.parametrize("kind", sorted(ZERO_KEEPING_KINDS))
    def test_zero_stays_zero(self, kernels: Kernels[Any], kind: UnaryKind) -> None:
        y = apply(kernels, kind, np.zeros(33, np.float32), 0.2, 0.5)

        assert not y.any()

    @pytest.mark.parametrize("kind", UNARY_KINDS)
    def test_in_place_and_of_any_shape(
        self, kernels: Kernels[Any], kind: UnaryKind
    ) -> None:
        x = np.abs(values(3, 5, 7)) + 1
        expected = apply(kernels, kind, x, 0.2, 0.5)

        kernels.unary(kind, x, x, alpha=0.2, beta=0.5)

        np.testing.assert_array_equal(x, expected)

    def test_refuses(self, kernels: Kernels[Any]) -> None:
        x = np.zeros(3, np.float32)

        with pytest.raises(ValueError, match="no kind 'swoosh'; it has identity"):
            kernels.unary("swoosh", x, x)
        with pytest.raises(ShapeError, match="must be of one size"):
            kernels.unary("relu", x, np.zeros(4, np.float32))


@pytest.mark.parametrize("grid", GRIDS)
class TestPlanes:
    def test_there_and_back(self, kernels: Kernels[Any], grid: Grid) -> None:
        x = values(grid.n, 17, grid.h, grid.w)
        out = np.empty_like(x)

        y = written(grid, 17, lambda y: kernels.to_planes(x, y, grid))
        kernels.from_planes(planes(x, grid), grid, 17, out)

        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(out, x)

    def test_tokens_there_and_back(self, kernels: Kernels[Any], grid: Grid) -> None:
        """Row t of a matrix is pixel t, in the order image, row, column."""
        x = values(grid.pixels, 33)
        out = np.empty_like(x)

        y = written(grid, 33, lambda y: kernels.to_tokens(x, y, grid))
        kernels.from_tokens(planes(y, grid), grid, 33, out)

        np.testing.assert_array_equal(y.transpose(0, 2, 3, 1).reshape(-1, 33), x)
        np.testing.assert_array_equal(out, x)

    def test_affine(self, kernels: Kernels[Any], grid: Grid) -> None:
        """The shift does not leak into the border."""
        x = values(grid.n, 3, grid.h, grid.w)
        scale, shift = np.array([1, 0, -2], "f4"), np.array([0, 5, 1], "f4")
        laid = planes(x, grid)

        y = written(
            grid,
            3,
            lambda y: kernels.channel_affine(laid, scale, shift, -1, 4, y, grid, 3),
        )

        expected = x * scale[:, None, None] + shift[:, None, None]
        close(y, expected.clip(-1, 4), 1e-6)

    def test_prelu(self, kernels: Kernels[Any], grid: Grid) -> None:
        x = values(grid.n, 3, grid.h, grid.w)
        slope, laid = np.array([0, 0.5, -2], "f4"), planes(x, grid)

        y = written(grid, 3, lambda y: kernels.prelu(laid, slope, y, grid, 3))

        close(y, np.where(x < 0, x * slope[:, None, None], x), 1e-6)

    def test_sum(self, kernels: Kernels[Any], grid: Grid) -> None:
        a = values(grid.n, 3, grid.h, grid.w)
        b = a[:, ::-1] * 2
        left, right = planes(a, grid), planes(b, grid)

        y = written(grid, 3, lambda y: kernels.add_planes(left, right, y, -1, 2))

        close(y, (a + b).clip(-1, 2), 1e-6)

    def test_zero_border_keeps_the_pixels(
        self, kernels: Kernels[Any], grid: Grid
    ) -> None:
        y = np.full(grid.size(3), 7, np.float32)

        kernels.zero_border(y, grid, 3)

        assert (pixels(y, grid, 3) == 7).all()

    def test_nan_passes(self, kernels: Kernels[Any], grid: Grid) -> None:
        x = values(grid.n, 2, grid.h, grid.w)
        x[0, 1, 0, 0] = NAN
        laid, ones = planes(x, grid), np.ones(2, np.float32)

        for op in (
            lambda y: kernels.channel_affine(laid, ones, ones, 0, 1, y, grid, 2),
            lambda y: kernels.prelu(laid, ones, y, grid, 2),
            lambda y: kernels.add_planes(laid, laid, y, 0, 1),
        ):
            assert (np.isnan(written(grid, 2, op)) == np.isnan(x)).all()


class TestRefuses:
    def test_layouts_that_do_not_fit(self, kernels: Kernels[Any]) -> None:
        grid = Grid(1, 2, 3)
        y = np.zeros(grid.size(2), np.float32)

        with pytest.raises(ShapeError, match="x must be"):
            kernels.to_planes(np.zeros((1, 2, 3, 2), np.float32), y, grid)
        with pytest.raises(ShapeError, match="out must be"):
            kernels.from_planes(y, grid, 2, np.zeros((1, 1, 2, 3), np.float32))
        with pytest.raises(ShapeError, match="x must be"):
            kernels.to_tokens(np.zeros((5, 2), np.float32), y, grid)
        with pytest.raises(ShapeError, match="out must be"):
            kernels.from_tokens(y, grid, 2, np.zeros((6, 3), np.float32))

    def test_short_buffers(self, kernels: Kernels[Any]) -> None:
        grid, short = token_grid(4), np.zeros(5, np.float32)

        with pytest.raises(ShapeError, match="flat buffer"):
            kernels.to_planes(np.zeros((1, 2, 1, 4), np.float32), short, grid)
        with pytest.raises(ShapeError, match="flat buffer"):
            kernels.zero_border(short, grid, 2)
        with pytest.raises(ShapeError, match="flat buffer"):
            kernels.from_tokens(short, grid, 2, np.zeros((4, 2), np.float32))
