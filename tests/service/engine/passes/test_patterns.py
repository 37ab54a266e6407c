"""Activations and layer norms in the spellings of several exporters."""
# ruff: noqa: E501 - one case a line is a table that can be read

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_graphs import difference, draw, graph, judge, node

from nnz_service.engine import load

F = np.float32
ROWS = {"x": (F, ("n", 5, 8))}
CONSTANTS = {
    "half": F(0.5),
    "one": F(1),
    "two": F(2),
    "three": F(3),
    "six": F(6),
    "root": F(np.sqrt(2)),
    "inverse": F(1 / np.sqrt(2)),
    "cubic": F(0.044715),
    "slope": F(np.sqrt(2 / np.pi)),
    "odd": F(1.702),
    "zero": F(0),
    "low": F(-10),
    "high": F(10),
    "eps": F(1e-5),
    "g": draw(F, (8,), 1),
    "b": draw(F, (8,), 2),
}

ACTIVATIONS = {
    "gelu of torch": (
        "Gelu",
        [
            node("Div", "x root", "a"), node("Erf", "a", "c"), node("Add", "c one", "d"),
            node("Mul", "x d", "e"), node("Mul", "e half"),
        ],
    ),
    "gelu, half first": (
        "Gelu",
        [
            node("Mul", "half x", "h"), node("Mul", "x inverse", "a"), node("Erf", "a", "c"),
            node("Add", "one c", "d"), node("Mul", "h d"),
        ],
    ),
    "gelu by tanh": (
        "Gelu",
        [
            node("Pow", "x three", "p"), node("Mul", "p cubic", "q"), node("Add", "x q", "r"),
            node("Mul", "slope r", "s"), node("Tanh", "s", "t"), node("Add", "t one", "u"),
            node("Mul", "u half", "v"), node("Mul", "v x"),
        ],
    ),
    "silu": ("Silu", [node("Sigmoid", "x", "s"), node("Mul", "s x")]),
    "hard swish": ("HardSwish", [node("HardSigmoid", "x", "s", alpha=1 / 6), node("Mul", "x s")]),
    "hard swish by clip": (
        "HardSwish",
        [
            node("Add", "x three", "a"), node("Clip", "a zero six", "c"), node("Mul", "x c", "d"),
            node("Div", "d six"),
        ],
    ),
}  # fmt: skip

OTHERS = {
    "quick gelu": [node("Mul", "x odd", "a"), node("Sigmoid", "a", "s"), node("Mul", "s x")],
    "bounded far out": [
        node("Clip", "x low high", "c"), node("Sigmoid", "x", "s"), node("Mul", "c s"),
    ],
    "tanh twice": [node("Tanh", "x", "t"), node("Add", "t one", "u"), node("Mul", "u x")],
    "inner value is read": [
        node("Sigmoid", "x", "s"), node("Mul", "s x", "m"), node("Add", "m s"),
    ],
}  # fmt: skip


def steps(nodes: list[Any], opset: int = 13) -> list[str]:
    """Ops of the plan, after checking the answer."""
    file = graph(nodes, ROWS, CONSTANTS, opset=opset)
    model = load(file)
    feeds = {"x": 3 * draw(F, (2, 5, 8))}
    assert difference(model.run(feeds)["y"], judge(file, feeds)["y"]) < 5e-6
    return [step.op for step in model.plan.steps]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_one_step_for_an_activation(name: str) -> None:
    op, nodes = ACTIVATIONS[name]

    assert steps(nodes) == [op]


@pytest.mark.parametrize("name", OTHERS)
def test_likenesses_are_left_alone(name: str) -> None:
    found = steps(OTHERS[name])

    assert len(found) == len(OTHERS[name])


def test_constant_that_adds_axes_is_left_alone() -> None:
    nodes = [node("Sigmoid", "x", "s"), node("Mul", "s x", "m"), node("Mul", "m deep")]
    file = graph(nodes, ROWS, {"deep": np.ones((1, 1, 1, 1), F)})
    feeds = {"x": draw(F, (2, 5, 8))}

    found = load(file).run(feeds)["y"]

    assert difference(found, judge(file, feeds)["y"]) < 5e-6


MEAN = [node("ReduceMean", "x", "m", axes=[-1])]
SPREAD = [
    node("ReduceMean", "p", "v", axes=[2]),
    node("Add", "v eps", "w"),
    node("Sqrt", "w", "q"),
]
SCALED = [node("Div", "d q", "n"), node("Mul", "n g", "o"), node("Add", "o b")]
NORMS = {
    "torch": [*MEAN, node("Sub", "x m", "d"), node("Pow", "d two", "p"), *SPREAD, *SCALED],
    "square by product": [*MEAN, node("Sub", "x m", "d"), node("Mul", "d d", "p"), *SPREAD, *SCALED],
    "two differences": [
        *MEAN, node("Sub", "x m", "e"), node("Sub", "x m", "d"), node("Pow", "e two", "p"),
        *SPREAD, *SCALED,
    ],
    "without scale and shift": [
        *MEAN, node("Sub", "x m", "d"), node("Pow", "d two", "p"), *SPREAD, node("Div", "d q"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_one_step_for_a_layer_norm(name: str) -> None:
    assert steps(NORMS[name]) == ["LayerNormalization"]


def test_norm_over_another_axis_is_left_alone() -> None:
    nodes = [
        node("ReduceMean", "x", "m", axes=[1]),
        *NORMS["without scale and shift"][1:],
    ]

    assert "LayerNormalization" not in steps(nodes)
