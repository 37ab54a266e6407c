"""Files with flipped, lost and added bytes: a typed error or a model, nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import draw, graph, node

from nnz_service.engine import load
from nnz_service.errors import ServiceError

F = np.float32

NETWORK = graph(
    [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1], group=1),
        node("BatchNormalization", "a s t s t", "b"),
        node("Clip", "b lo hi", "c"),
        node("MaxPool", "c", "d", kernel_shape=[2, 2], strides=[2, 2]),
        node("Concat", "d d", "e", axis=1),
        node("Pad", "e p", "f"),
        node("Shape", "f", "g"),
        node("Slice", "g first second", "h"),
        node("Concat", "h rest", "i", axis=0),
        node("Reshape", "f i", "j"),
        node("Gemm", "j v", "k", transB=1),
        node("LayerNormalization", "k u", "l", axis=-1),
        node("Split", "l", "m n", axis=1),
        node("MatMul", "m q", "o"),
        node("Softmax", "o", axis=-1),
    ],
    {"x": (F, ("n", 2, 6, 6))},
    {
        "w": draw(F, (4, 2, 3, 3)),
        "s": np.ones(4, F),
        "t": np.ones(4, F),
        "lo": F(0),
        "hi": F(6),
        "p": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "first": np.array([0]),
        "second": np.array([1]),
        "rest": np.array([-1]),
        "v": draw(F, (6, 128)),
        "u": np.ones(6, F),
        "q": draw(F, (3, 3)),
    },
    opset=17,
)


def mutant(file: bytes, rng: np.random.Generator) -> bytes:
    """One to three small changes at random places."""
    out = bytearray(file)
    for _ in range(rng.integers(1, 4)):
        place, kind = int(rng.integers(len(out))), int(rng.integers(4))
        if kind == 0:
            out[place] = int(rng.integers(256))
        elif kind == 1:
            out[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del out[place : place + int(rng.integers(1, 8))]
        else:
            out[place:place] = rng.bytes(int(rng.integers(1, 6)))
    return bytes(out)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_mutants(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loaded = 0
    for _ in range(250):
        try:
            model = load(mutant(NETWORK, rng), backend="reference")
            feeds = {
                i.name: np.ones([d or 1 for d in i.shape], F) for i in model.inputs
            }
            model.run(feeds)
        except ServiceError:
            continue
        loaded += 1
    # Most changes hit weights, so that many mutants are models.
    assert 0 < loaded < 250
