"""What ends up inside a layer, and what must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_graphs import difference, draw, graph, judge, node

from nnz_service.engine import load

F = np.float32
IMAGE = {"x": (F, ("n", 6, 7, 7))}
W = draw(F, (6, 6, 3, 3))
NORM = {name: draw(F, (6,), i) for i, name in enumerate("stm")}
NORM["v"] = np.abs(draw(F, (6,), 9))
SAME = {"pads": [1, 1, 1, 1]}


def ops(file: bytes) -> list[str]:
    """Steps of the plan but the last conversion, after checking the answer."""
    model = load(file)
    feeds = {
        info.name: draw(F, [2 if d is None else d for d in info.shape], 5)
        for info in model.inputs
    }
    expected = judge(file, feeds)
    for name, found in model.run(feeds).items():
        assert difference(found, expected[name]) < 5e-6
    return [s.op for s in model.plan.steps if not s.op.startswith("from_")]


def test_norm_bias_residual_and_activation() -> None:
    nodes = [
        node("Conv", "x w", "a", **SAME),
        node("BatchNormalization", "a s t m v", "b"),
        node("Add", "b k", "c"),
        node("Add", "x c", "d"),
        node("Clip", "d lo hi"),
    ]
    constants = {
        "w": W,
        **NORM,
        "k": draw(F, (6, 1, 1)),
        "lo": F(-0.5),
        "hi": F(2),
    }

    assert ops(graph(nodes, IMAGE, constants)) == ["Conv"]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param(
            [
                node("Conv", "x w", "a", **SAME),
                node("Relu", "a", "b"),
                node("Add", "b x"),
            ],
            ["Conv", "Add"],
            id="activation before the sum",
        ),
        pytest.param(
            [
                node("Conv", "x w", "a", **SAME),
                node("Relu", "a", "b"),
                node("BatchNormalization", "b s t m v"),
            ],
            ["Conv", "ChannelAffine"],
            id="activation before the norm",
        ),
        pytest.param(
            [
                node("Conv", "x w", "a", **SAME),
                node("Relu", "a", "b"),
                node("Neg", "a", "c"),
                node("Add", "b c"),
            ],
            ["Conv", "Relu", "Neg", "Add"],
            id="a value that two nodes read",
        ),
        pytest.param(
            [
                node("Conv", "x w", "a", **SAME),
                node("GlobalAveragePool", "a", "p"),
                node("Conv", "p u", "b"),
                node("Add", "b a"),
            ],
            ["Conv", "GlobalAveragePool", "Conv", "Add"],
            id="a sum that spreads the layer",
        ),
    ],
)
def test_what_stays_outside(nodes: Any, expected: list[str]) -> None:
    constants = {"w": W, **NORM, "u": draw(F, (6, 6, 1, 1))}

    assert ops(graph(nodes, IMAGE, constants)) == expected


def test_sum_of_sizes_that_only_look_alike() -> None:
    """Two free axes may differ in another call: no residual."""
    inputs = {"x": (F, ("n", 6, 7, 7)), "z": (F, ("m", 6, 7, 7))}
    nodes = [node("Conv", "x w", "a", **SAME), node("Add", "a z")]
    file = graph(nodes, inputs, {"w": W})
    model = load(file)
    feeds = {"x": draw(F, (3, 6, 7, 7)), "z": draw(F, (1, 6, 7, 7), 1)}

    assert difference(model.run(feeds)["y"], judge(file, feeds)["y"]) < 5e-6
    assert model.max_batch == 0


def test_pad_joins_the_convolution() -> None:
    constants = {"p": np.array([0, 0, 0, 1, 0, 0, 2, 1]), "w": W}

    assert ops(
        graph([node("Pad", "x p", "a"), node("Conv", "a w")], IMAGE, constants)
    ) == ["Conv"]


@pytest.mark.parametrize("pads", [[0, 0, 0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]])
def test_pad_of_channels_or_images_stays(pads: list[int]) -> None:
    w = draw(F, (4, 6 + pads[5], 3, 3))
    nodes = [node("Pad", "x p", "a"), node("Conv", "a w")]
    inputs = {"x": (F, (2, 6, 7, 7))}

    assert "Pad" in ops(graph(nodes, inputs, {"p": np.array(pads), "w": w}))


def test_pad_with_ones_stays() -> None:
    nodes = [node("Pad", "x p o", "a"), node("Conv", "a w")]
    constants = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": W, "o": F(1)}

    assert ops(graph(nodes, IMAGE, constants)) == ["Pad", "to_planes", "Conv"]
