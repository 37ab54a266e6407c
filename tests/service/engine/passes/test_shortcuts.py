"""A strided slice with channels padded is a sparse layer; others stay what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_graphs import difference, draw, graph, judge, node

from nnz_service.engine import Model, load

F, I64 = np.float32, np.int64
IMAGE = {"x": (F, ("n", 6, 9, 8))}
W = draw(F, (6, 6, 3, 3))
SAME = {"pads": [1, 1, 1, 1]}


def ints(*values: int) -> Any:
    return np.array(values, I64)


CUT = {"s": ints(0, 0), "e": ints(2**31 - 1, 99), "a": ints(2, -1), "t": ints(2, 2)}
WIDER = {"p": ints(0, 2, 0, 0, 0, 3, 0, 0)}


def shortcut(constants: dict[str, Any], **attrs: Any) -> Model:
    """Load what cuts and widens the result of a convolution; check its answer."""
    pad = "c p f" if "f" in constants else "c p"
    nodes = [
        node("Conv", "x w", "b", **SAME),
        node("Slice", "b s e a t", "c"),
        node("Pad", pad, "y", **attrs),
    ]
    file = graph(nodes, IMAGE, {"w": W, **constants})
    model = load(file)
    for batch in (1, 3):
        feeds = {"x": draw(F, (batch, 6, 9, 8), batch)}
        expected = judge(file, feeds)
        assert difference(model.run(feeds)["y"], expected["y"]) < 2e-6
    return model


def ops(model: Model) -> list[str]:
    return [s.op for s in model.plan.steps if not s.op.startswith("from_")]


def test_becomes_a_sparse_layer() -> None:
    model = shortcut({**CUT, **WIDER})

    assert ops(model) == ["Conv", "Conv"]
    row = model.explain()[1]
    assert row["weights"] == [11, 6, 1, 1]
    assert row["density"] == pytest.approx(1 / 11)
    assert row["kernel"].startswith("spmm_")


def test_takes_in_the_sum_that_follows() -> None:
    nodes = [
        node("Conv", "x w", "b", **SAME),
        node("Slice", "b s e a t", "c"),
        node("Pad", "c p", "d"),
        node("Conv", "b v", "e2", strides=[2, 2], **SAME),
        node("Add", "e2 d", "g"),
        node("Relu", "g"),
    ]
    constants = {"w": W, "v": draw(F, (11, 6, 3, 3)), **CUT, **WIDER}
    file = graph(nodes, IMAGE, constants)
    model, feeds = load(file), {"x": draw(F, (2, 6, 9, 8))}

    assert ops(model) == ["Conv", "Conv", "Conv"]
    expected = judge(file, feeds)["y"]
    assert difference(model.run(feeds)["y"], expected) < 2e-6


def test_infinity_stays_in_its_channel() -> None:
    nodes = [
        node("MaxPool", "x", "b", kernel_shape=[1, 1]),
        node("Slice", "b s e a t", "c"),
        node("Pad", "c p"),
    ]
    file = graph(nodes, IMAGE, {**CUT, **WIDER})
    x = draw(F, (1, 6, 9, 8))
    x[0, 2, 4, 4], x[0, 3, 0, 0] = np.inf, np.nan

    found = load(file).run({"x": x})["y"]

    np.testing.assert_array_equal(found, judge(file, {"x": x})["y"])


@pytest.mark.parametrize(
    "constants",
    [
        pytest.param({**CUT, "p": ints(0, 0, 1, 0, 0, 3, 0, 0)}, id="rows too"),
        pytest.param({**CUT, **WIDER, "f": F(0.5)}, id="not with zeros"),
        pytest.param({**CUT, "p": ints(0, -1, 0, 0, 0, 3, 0, 0)}, id="narrower"),
        pytest.param({**CUT, "p": ints(*[0] * 8)}, id="nothing"),
    ],
)
def test_other_pads_stay(constants: dict[str, Any]) -> None:
    assert "Pad" in ops(shortcut(constants))


def test_a_free_axis_may_be_longer_than_what_was_tried() -> None:
    """512 is behind every row of the images that the pass sees, not of this one."""
    nodes = [
        node("Conv", "x w", "b", **SAME),
        node("Slice", "b s e a t", "c"),
        node("Pad", "c p"),
    ]
    constants = {"w": W, **CUT, **WIDER, "e": ints(512, 512), "a": ints(2, 3)}
    file = graph(nodes, {"x": (F, (1, 6, "h", 8))}, constants)
    feeds = {"x": draw(F, (1, 6, 600, 8))}

    found = load(file).run(feeds)["y"]

    expected = judge(file, feeds)["y"]
    assert found.shape == expected.shape == (1, 11, 256, 4)
    assert difference(found, expected) < 2e-6


@pytest.mark.parametrize("shape", [("n", 60_000, 1, 4), ("n", 6, 9, 8)])
def test_what_is_no_image_stays(shape: tuple[Any, ...]) -> None:
    """Rows of a cache may be many: a square of that number would not fit."""
    file = graph([node("Relu", "x", "b"), node("Pad", "b p")], {"x": (F, shape)}, WIDER)

    assert [s.op for s in load(file).plan.steps] == ["Relu", "Pad"]


def test_another_mode_stays() -> None:
    assert "Pad" in ops(shortcut({**CUT, **WIDER}, mode="edge"))


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param({"s": ints(1, 0)}, id="starts later"),
        pytest.param({"e": ints(8, 99)}, id="ends sooner"),
        pytest.param({"a": ints(1, 2), "e": ints(6, 99)}, id="channels"),
    ],
)
def test_other_slices_stay_outside(cut: dict[str, Any]) -> None:
    """And a Pad of what is no longer in planes stays too."""
    model = shortcut({**CUT, **cut, **WIDER})

    assert ops(model) == ["Conv", "Pad"]
