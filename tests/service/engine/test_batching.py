"""Requests are joined only where images cannot see each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_graphs import draw, graph, node

from nnz_service.engine import load

F = np.float32
ROWS = {"x": (F, ("n", 4, 6))}
IMAGE = {"x": (F, ("n", 4, 6, 6))}


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


APART = {
    "elementwise": ([node("Add", "x k")], ROWS, {"k": draw(F, (4, 6))}),
    "flat head": (
        [node("Flatten", "x", "f"), node("MatMul", "f w")],
        ROWS,
        {"w": draw(F, (24, 3))},
    ),
    "attention": (
        [
            node("Transpose", "x", "t", perm=[0, 2, 1]),
            node("MatMul", "x t", "m"),
            node("Softmax", "m", "s"),
            node("MatMul", "s x"),
        ],
        ROWS,
        {},
    ),
    "tokens merged and split again": (
        [
            node("Reshape", "x s", "r"),
            node("MatMul", "r w", "m"),
            node("Shape", "x", "d", end=1),
            node("Concat", "d e", "f", axis=0),
            node("Reshape", "m f"),
        ],
        ROWS,
        {"s": ints(-1, 6), "w": draw(F, (6, 3)), "e": ints(4, 3)},
    ),
    "class token": (
        [
            node("Shape", "x", "s", end=1),
            node("Concat", "s e", "t", axis=0),
            node("Expand", "k t", "u"),
            node("Concat", "u x", axis=1),
        ],
        ROWS,
        {"e": ints(1, 6), "k": draw(F, (1, 1, 6))},
    ),
    "image": ([node("MaxPool", "x", kernel_shape=[2, 2])], IMAGE, {}),
    "mean of pixels": ([node("ReduceMean", "x", axes=[2, 3])], IMAGE, {}),
}

MIXED = {
    "softmax over the batch": ([node("Softmax", "x", axis=0)], ROWS, {}),
    "old softmax over the batch": ([node("Softmax", "x", axis=0)], ROWS, {}),
    "mean over the batch": (
        [node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x m")],
        ROWS,
        {},
    ),
    "first image for all": (
        [node("Slice", "x s e a", "f"), node("Add", "x f")],
        ROWS,
        {"s": ints(0), "e": ints(1), "a": ints(0)},
    ),
    "images in reverse": (
        [node("Slice", "x s e a t")],
        ROWS,
        {"s": ints(-1), "e": ints(-99), "a": ints(0), "t": ints(-1)},
    ),
    "images against each other": (
        [node("Gemm", "x x", "y", transB=1)],
        {"x": (F, ("n", 6))},
        {},
    ),
    "batch not first": ([node("Relu", "x")], {"x": (F, (4, "n"))}, {}),
    "output without batch": ([node("ReduceSum", "x", keepdims=0)], ROWS, {}),
    "interleaved": (
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            node("Reshape", "t s", "r"),
        ],
        ROWS,
        {"s": ints(-1, 4, 6)},
    ),
    "cut at other places": (
        [
            node("Reshape", "x s", "r"),
            node("Transpose", "r", "t", perm=[1, 0, 2]),
        ],
        ROWS,
        {"s": ints(4, -1, 6)},
    ),
    "number of images as data": (
        [
            node("Shape", "x", "s", end=1),
            node("Cast", "s", "n", to=1),
            node("Div", "x n"),
        ],
        ROWS,
        {},
    ),
    "whether it is alone as data": (
        [
            node("Shape", "x", "s", end=1),
            node("Equal", "s one", "e"),
            node("Where", "e five unit", "f"),
            node("Mul", "x f"),
        ],
        ROWS,
        {"one": ints(1), "five": np.ones(1, F) * 5, "unit": np.ones(1, F)},
    ),
    "place in the batch as data": (
        [
            node("Shape", "x", "s", end=1),
            node("Squeeze", "s", "n"),
            node("Range", "zero n one", "i"),
            node("Cast", "i", "f", to=1),
            node("Unsqueeze", "f a", "g"),
            node("Add", "x g"),
        ],
        ROWS,
        {"zero": np.array(0), "one": np.array(1), "a": ints(1, 2)},
    ),
}


@pytest.mark.parametrize("name", APART)
def test_images_apart(name: str) -> None:
    nodes, inputs, constants = APART[name]
    opset = 13 if any(n.op_type.startswith("Reduce") for n in nodes) else 17
    model = load(graph(nodes, inputs, constants, opset=opset), backend="reference")

    assert model.max_batch > 1
    [info] = model.inputs
    rows = [draw(F, [1, *(d for d in info.shape if d)], i) for i in range(3)]
    joined = model.run({"x": np.concatenate(rows)})["y"]
    alone = [model.run({"x": row})["y"] for row in rows]
    np.testing.assert_allclose(joined, np.concatenate(alone), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MIXED)
def test_images_that_see_each_other(name: str) -> None:
    nodes, inputs, constants = MIXED[name]
    opset = 11 if name.startswith("old") else 17
    result = nodes[-1].output[0]
    file = graph(nodes, inputs, constants, result, opset=opset)

    assert load(file, backend="reference").max_batch == 0
