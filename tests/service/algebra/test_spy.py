from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.sparse
from PIL import Image

from nnz_kernels.convert import csr_from_dense, csr_from_scipy
from nnz_service.algebra import spy as module
from nnz_service.algebra.spy import counts, png, spy


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))


def test_png_is_what_others_read() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (7, 13)).astype(np.uint8)

    image = Image.open(io.BytesIO(png(grey)))

    assert (image.mode, image.size) == ("L", (13, 7))
    np.testing.assert_array_equal(np.asarray(image), grey)


def test_a_small_matrix_is_enlarged() -> None:
    found = pixels(spy(csr_from_dense(np.array([[0.0, 2, 0], [3, 0, 0]])), 16))

    assert found.shape == (10, 15)
    assert (found[:5, 5:10] == 0).all()
    assert (found[5:, :5] == 0).all()
    assert np.count_nonzero(found == 255) == 150 - 50


def test_darker_is_more() -> None:
    dense = np.zeros((40, 40))
    dense[0, 0], dense[0:2, 10], dense[20:24, 20:24] = 1, 1, 1

    found = pixels(spy(csr_from_dense(dense), 10))

    assert found.shape == (10, 10)
    one, two, most, none = found[0, 0], found[0, 2], found[5, 5], found[9, 9]
    assert none == 255 > one > two > most == 0


@pytest.mark.parametrize("shape", [(61, 47), (5, 301), (301, 1)])
@pytest.mark.parametrize("cell", [1, 4, 7, 400])
def test_counts(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], cell: int
) -> None:
    """Whatever the number of entries looked at together."""
    monkeypatch.setattr(module, "_CHUNK", 19)
    rng = np.random.default_rng(1)
    matrix = scipy.sparse.random_array(shape, density=0.1, rng=rng, format="csr")
    padded = np.zeros([-(-extent // cell) * cell for extent in shape])
    padded[: shape[0], : shape[1]] = matrix.toarray() != 0

    found = counts(csr_from_scipy(matrix), cell)

    tall, wide = (extent // cell for extent in padded.shape)
    wanted = padded.reshape(tall, cell, wide, cell).sum((1, 3))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (9, 0), (1, 2**40)])
def test_nothing_to_see(shape: tuple[int, int]) -> None:
    found = pixels(spy(csr_from_scipy(scipy.sparse.csr_array(shape)), 64))

    assert max(found.shape) <= 64
    assert (found == 255).all()
