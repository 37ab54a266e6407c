"""The handwritten digits of the demo: how they are split and how a network sees them.

Training, demo and tests must all do exactly the same. The pictures are scikit-learn's
`load_digits` (Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI
Machine Learning Repository, CC BY 4.0): 8 x 8 pixels of 0..16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parent
DENSE_MODEL = FOLDER / "digits_dense.onnx"
SPARSE_MODEL = FOLDER / "digits_sparse.onnx"
HELD_OUT_SHARE, SEED = 0.25, 0


def preprocess(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Turn pictures into what the networks take.

    Args:
        pixels: ``(n, 8, 8)`` of 0..16.

    Returns:
        ``(n, 1, 16, 16)`` float32 of -1..1: every pixel doubled in both directions, so
        that the layers have planes worth working on.
    """
    doubled = pixels.repeat(2, axis=1).repeat(2, axis=2).astype(np.float32)
    return np.ascontiguousarray((doubled / 8.0 - 1.0)[:, np.newaxis])


def held_out(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Choose the pictures that no training step may see: a quarter of each class."""
    rng = np.random.default_rng(SEED)
    chosen = np.zeros(labels.shape, dtype=np.bool_)
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(labels == digit))
        chosen[members[: round(HELD_OUT_SHARE * members.size)]] = True
    return chosen


def load_held_out() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the held-out pictures ``(n, 8, 8)`` and their labels ``(n,)``."""
    everything = load_digits()
    out = held_out(everything.target)
    return everything.images[out].astype(np.uint8), everything.target[out]
