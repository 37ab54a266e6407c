from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernels.network_cases import close, planes, written

from nnz_kernels import reference
from nnz_kernels.api import AttentionSpec, Kernels
from nnz_kernels.arrays import HostArray
from nnz_kernels.errors import DTypeError, ShapeError
from nnz_kernels.planes import Grid, token_grid

#: batch, queries, keys, heads, head_dim, value_dim: none is a whole number of tiles.
SIZES = [
    (1, 1, 1, 1, 1, 1),
    (1, 20, 20, 8, 64, 64),
    (3, 1, 5, 2, 7, 3),
    (2, 99, 99, 1, 64, 64),
    (3, 13, 13, 3, 5, 6),
    (2, 50, 9, 2, 11, 10),
    (1, 131, 70, 2, 6, 9),
    (2, 17, 33, 5, 4, 1),
    (1, 33, 70, 2, 65, 65),
    (1, 5, 34, 1, 130, 70),
]


def values(*shape: int, seed: int = 0) -> HostArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tokens(x: HostArray) -> HostArray:
    """Lay ``[batch, tokens, features]`` out as planes."""
    batch, count, features = x.shape
    flat = x.reshape(batch * count, features).T
    return planes(flat[None, :, None], token_grid(batch * count))


def operands(
    sizes: tuple[int, ...], scale: float = 0.3
) -> tuple[AttentionSpec, list[HostArray]]:
    """Random q, k and v ``[batch, tokens, features]``."""
    spec = AttentionSpec(*sizes, scale=scale)
    batch, queries, keys, heads, head_dim, value_dim = sizes
    q = values(batch, queries, heads * head_dim, seed=1)
    k = values(batch, keys, heads * head_dim, seed=2)
    return spec, [q, k, values(batch, keys, heads * value_dim, seed=3)]


def attend(
    kernels: Kernels[Any],
    spec: AttentionSpec,
    parts: list[HostArray],
    mask: HostArray | None = None,
    threads: int = 1,
) -> HostArray:
    """The result ``[batch, queries, features]``."""
    q, k, v = (tokens(part) for part in parts)
    grid = token_grid(spec.batch * spec.queries)
    channels = spec.heads * spec.value_dim
    made = written(
        grid,
        channels,
        lambda y: kernels.attention_planes(q, k, v, mask, y, spec, threads=threads),
    )
    return made.reshape(channels, -1).T.reshape(spec.batch, spec.queries, channels)


def normalise(
    kernels: Kernels[Any], x: HostArray, eps: float = 1e-5, threads: int = 1
) -> HostArray:
    """Normalise ``[tokens, features]`` with gamma and beta that differ everywhere."""
    count, features = x.shape
    gamma, beta = values(features, seed=5), values(features, seed=6)
    grid, laid = token_grid(count), tokens(x[None])
    made = written(
        grid,
        features,
        lambda y: kernels.layer_norm_planes(
            laid, gamma, beta, eps, y, grid, features, threads=threads
        ),
    )
    return made.reshape(features, count).T


class TestAttention:
    def test_by_hand(self, kernels: Kernels[Any]) -> None:
        """The second key is three times as likely as the first."""
        spec = AttentionSpec(1, 1, 2, 1, 1, 1, scale=0.5)
        k = np.array([0, 2 * np.log(3)], np.float32).reshape(1, 2, 1)
        v = np.array([4, 8], np.float32).reshape(1, 2, 1)

        out = attend(kernels, spec, [np.ones((1, 1, 1), np.float32), k, v])

        close(out, np.array([[[7]]], np.float32), 1e-6)

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("sizes", SIZES, ids=str)
    def test_equals_the_reference(
        self, kernels: Kernels[Any], sizes: tuple[int, ...], threads: int
    ) -> None:
        spec, parts = operands(sizes)

        close(
            attend(kernels, spec, parts, threads=threads),
            attend(reference, spec, parts),
            2e-6,
        )

    @pytest.mark.parametrize("kept", [0b1111, 0b1001, 0b0011, 0b0110, 0b0000])
    def test_mask(self, kernels: Kernels[Any], kept: int) -> None:
        """Any axis of the mask may be one."""
        spec, parts = operands((3, 21, 10, 3, 5, 6))
        shape = [s if kept >> i & 1 else 1 for i, s in enumerate(spec.scores)]
        mask = values(*shape, seed=4)
        mask[mask > 1] = -np.inf

        close(
            attend(kernels, spec, parts, mask),
            attend(reference, spec, parts, mask),
            2e-6,
        )

    @pytest.mark.parametrize("part", [0, 1, 2])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_stays_in_its_item_and_head(
        self, kernels: Kernels[Any], part: int, value: float
    ) -> None:
        spec, parts = operands((3, 13, 11, 3, 5, 6))
        clean = attend(kernels, spec, parts)
        parts[part][1, 4, spec.heads * (5, 5, 6)[part] // 2] = value

        out = attend(kernels, spec, parts)

        close(out, attend(reference, spec, parts), 2e-6)
        others = out.copy()
        others[1, :, 6:12] = clean[1, :, 6:12]
        np.testing.assert_array_equal(others, clean)
        assert not np.isfinite(out[1, :, 6:12]).all()

    def test_an_item_gives_the_same_bits_wherever_it_is(
        self, kernels: Kernels[Any]
    ) -> None:
        spec, parts = operands((5, 19, 19, 2, 6, 6))
        alone = AttentionSpec(1, *spec.scores[2:], 2, 6, 6, scale=spec.scale)

        joined = attend(kernels, spec, parts, threads=2)

        for item in range(spec.batch):
            mine = attend(kernels, alone, [p[item : item + 1] for p in parts])
            np.testing.assert_array_equal(mine, joined[item : item + 1])

    def test_operands_inside_of_wider_planes(self, kernels: Kernels[Any]) -> None:
        """One product that gives queries, keys and values needs no copies."""
        spec, parts = operands((2, 9, 9, 2, 4, 4))
        joined, grid = tokens(np.concatenate(parts, axis=-1)), token_grid(18)
        q, k, v = (joined[i * 8 * grid.ld :] for i in range(3))

        out = written(
            grid,
            8,
            lambda y: kernels.attention_planes(q, k, v, None, y, spec, threads=1),
        )

        expected = attend(kernels, spec, parts).reshape(18, 8).T
        np.testing.assert_array_equal(out.reshape(8, 18), expected)

    def test_large_scores(self, kernels: Kernels[Any]) -> None:
        spec, parts = operands((1, 12, 12, 1, 4, 4), scale=1e4)

        out = attend(kernels, spec, parts)

        close(out, attend(reference, spec, parts), 1e-5)
        assert np.isfinite(out).all()

    def test_refuses(self, kernels: Kernels[Any]) -> None:
        spec, parts = operands((2, 9, 7, 2, 4, 3))
        q, k, v = (tokens(part) for part in parts)
        y = np.empty(token_grid(18).size(6), np.float32)

        def run(*buffers: Any, mask: Any = None) -> None:
            kernels.attention_planes(*buffers[:3], mask, buffers[3], spec, threads=1)

        for place, name in enumerate(("q", "k", "v", "out")):
            short = [q, k, v, y]
            short[place] = short[place][:-1]
            with pytest.raises(ShapeError, match=f"{name} must"):
                run(*short)
        with pytest.raises(DTypeError, match="mask"):
            run(q, k, v, y, mask=np.zeros((1, 1, 1, 7)))
        for shape in ((1, 1, 7), (1, 1, 9, 9), (3, 1, 1, 7)):
            with pytest.raises(ShapeError, match="mask"):
                run(q, k, v, y, mask=np.zeros(shape, np.float32))
        with pytest.raises(ShapeError, match="sizes"):
            AttentionSpec(1, 1, 0, 1, 1, 1)
        with pytest.raises(ShapeError, match="scale"):
            AttentionSpec(1, 1, 1, 1, 1, 1, scale=np.inf)


class TestLayerNorm:
    def test_by_hand(self, kernels: Kernels[Any]) -> None:
        """Mean 2, variance 1."""
        grid = token_grid(1)
        laid = tokens(np.array([[[1, 3]]], np.float32))
        gamma, beta = np.array([[2, 2], [5, 7]], np.float32)

        y = written(
            grid,
            2,
            lambda y: kernels.layer_norm_planes(
                laid, gamma, beta, 0.0, y, grid, 2, threads=1
            ),
        )

        assert y.ravel().tolist() == [3, 9]

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize(
        "shape", [(1, 1), (1, 768), (20, 64), (129, 33), (1027, 40)], ids=str
    )
    def test_equals_the_reference(
        self, kernels: Kernels[Any], shape: tuple[int, int], threads: int
    ) -> None:
        x = values(*shape) + np.float32(10)

        close(normalise(kernels, x, threads=threads), normalise(reference, x), 2e-5)

    def test_many_channels(self, kernels: Kernels[Any]) -> None:
        x = values(9, 1500)

        close(normalise(kernels, x), normalise(reference, x), 2e-5)

    def test_variance_is_taken_around_the_mean(self, kernels: Kernels[Any]) -> None:
        x = np.float32(4096) + (values(17, 64) > 0)

        close(normalise(kernels, x), normalise(reference, x), 2e-5)

    def test_what_is_not_finite_stays_in_its_token(self, kernels: Kernels[Any]) -> None:
        x = values(21, 30)
        clean = normalise(kernels, x)
        x[3, 4], x[9, 0] = np.nan, np.inf

        y = normalise(kernels, x)

        assert np.isnan(y[[3, 9]]).all()
        y[[3, 9]] = clean[[3, 9]]
        np.testing.assert_array_equal(y, clean)

    @pytest.mark.parametrize("channels", [30, 1025])
    def test_in_place(self, kernels: Kernels[Any], channels: int) -> None:
        x, grid = values(21, channels), token_grid(21)
        gamma, beta = values(channels, seed=5), values(channels, seed=6)
        buffer = tokens(x[None])

        kernels.layer_norm_planes(
            buffer, gamma, beta, 1e-5, buffer, grid, channels, threads=1
        )

        found = grid.view(buffer, channels).reshape(channels, 21).T
        np.testing.assert_array_equal(found, normalise(kernels, x))

    @pytest.mark.parametrize("place", range(4))
    def test_refuses_short_buffers(self, kernels: Kernels[Any], place: int) -> None:
        grid = token_grid(5)
        parts = [np.ones(size, np.float32) for size in (grid.size(3), 3, 3)]
        parts.append(np.empty(grid.size(3), np.float32))
        parts[place] = parts[place][:-1]
        x, gamma, beta, y = parts

        with pytest.raises(ShapeError, match="flat buffer"):
            kernels.layer_norm_planes(x, gamma, beta, 1e-5, y, grid, 3, threads=1)

    @pytest.mark.parametrize(
        "grid", [Grid(2, 1, 3), Grid(1, 2, 3), Grid(1, 1, 3, 0, 1)]
    )
    def test_refuses_images(self, kernels: Kernels[Any], grid: Grid) -> None:
        x, ones = np.zeros(grid.size(3), np.float32), np.ones(3, np.float32)

        with pytest.raises(ShapeError, match="planes of tokens"):
            kernels.layer_norm_planes(x, ones, ones, 1e-5, x, grid, 3, threads=1)
