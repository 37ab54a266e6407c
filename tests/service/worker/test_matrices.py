"""Products of a resident matrix with many vectors at once."""

from __future__ import annotations

import time

import numpy as np
import pytest
import scipy.sparse as sp

from nnz_kernels.backends import Backend
from nnz_kernels.formats import Csr
from nnz_service.algebra.operator import MatrixOperator
from nnz_service.errors import InvalidInputError
from nnz_service.worker import matrices
from nnz_service.worker.matrices import MAX_BATCH, MatrixServable

RNG = np.random.default_rng(0)


def servable(
    rows: int = 90, columns: int = 70, dtype: type = np.float64, density: float = 0.2
) -> tuple[MatrixServable, np.ndarray]:
    a = sp.csr_array(sp.random_array((rows, columns), density=density, rng=RNG))
    a = a.astype(dtype)
    a.sort_indices()
    matrix = Csr(a.indptr, a.indices, a.data, a.shape)
    return MatrixServable(MatrixOperator(matrix, Backend.CPU)), a.toarray()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("tile", [None, 16])
def test_each_vector_has_the_answer_of_a_lone_product(
    dtype: type, flipped: bool, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tile is not None:  # as for long vectors, which do not fit a cache together
        monkeypatch.setattr(matrices, "_CACHE", 1)
    made, dense = servable(dtype=dtype)
    if flipped:
        assert made.transpose is not None
        made, dense = made.transpose, dense.T
    x = RNG.standard_normal((MAX_BATCH, dense.shape[1])).astype(dtype)
    lone = [made.run({"x": row[np.newaxis]}, None)["y"][0] for row in x]
    np.testing.assert_allclose(lone, x @ dense.T, rtol=1e-4, atol=1e-4)

    for count in range(1, MAX_BATCH + 1):
        y = made.run({"x": x[:count]}, None)["y"]

        assert y.shape == (count, dense.shape[0])
        assert y.dtype == dtype
        for mine, alone in zip(y, lone, strict=False):
            assert mine.tobytes() == alone.tobytes() or not made.bitwise
        np.testing.assert_allclose(y, lone[:count], rtol=1e-4, atol=1e-5)


def test_only_what_is_so_is_promised() -> None:
    made, _ = servable()

    assert made.bitwise
    assert made.transpose is not None
    assert not made.transpose.bitwise


def test_infinity_of_the_matrix_stays_in_its_row() -> None:
    """Columns that only fill up a pass must not reach an answer."""
    made, _ = servable(3, 2, density=1.0)
    made.operator.matrix.data[0] = np.inf
    x = np.ones((3, 2))

    y = made.run({"x": x}, None)["y"]

    assert np.isinf(y[:, 0]).all()
    assert np.isfinite(y[:, 1:]).all()


def test_results_that_no_memory_holds() -> None:
    """A few bytes may not ask for terabytes; what is refused is never allocated."""
    wide = Csr(np.array([0, 1]), np.array([1 << 20]), np.ones(1), (1, 1 << 21))
    made = MatrixServable(MatrixOperator(wide, Backend.CPU)).transpose
    assert made is not None
    made.check({"x": np.ones((256, 1))})

    with pytest.raises(InvalidInputError, match="result would take 4311744512 bytes"):
        made.check({"x": np.ones((257, 1))})


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_matrices(shape: tuple[int, int]) -> None:
    made, _ = servable(*shape)

    y = made.run({"x": np.ones((5, shape[1]))}, None)["y"]

    np.testing.assert_array_equal(y, np.zeros((5, shape[0])))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_matrices_times_ever_so_many(shape: tuple[int, int]) -> None:
    """Vectors without numbers take no bytes, however many a request says there are."""
    made, _ = servable(*shape)
    count = 10**6 if shape == (3, 0) else 10**15 if shape == (0, 0) else 10**5
    x = np.empty((count, shape[1]))

    began = time.monotonic()
    y = made.run({"x": x}, None)["y"]

    assert y.shape == (count, shape[0])
    assert time.monotonic() - began < 0.1


@pytest.mark.parametrize(
    ("length", "dtype", "tile"),
    [
        (10, np.float64, 64),
        (1024, np.float64, 64),
        (2048, np.float64, 32),
        (4096, np.float64, 16),
        (10**7, np.float64, 16),
        (10**7, np.float32, 32),
    ],
)
def test_as_many_at_once_as_a_cache_holds(length: int, dtype: type, tile: int) -> None:
    assert matrices._tile_of(length, np.dtype(dtype)) == tile
