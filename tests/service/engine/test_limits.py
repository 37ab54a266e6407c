"""Small files that ask for much memory, much time or another type are refused at once."""
# ruff: noqa: E501 - one case a line is a table that can be read

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_graphs import draw, graph, node

from nnz_service.engine import load
from nnz_service.engine.onnx_import import MAX_NODES, import_model
from nnz_service.errors import InvalidModelError, UnsupportedModelError

F = np.float32
ROWS = {"x": (F, ("n", 4))}
WHOLE = {"i": (np.int64, ("n", 4)), "j": (np.int64, (4, 4))}
TRUTH = {"b": (np.bool_, ("n",))}
LONG = 60_000


def _ints(*values: int) -> Any:
    return np.array(values, np.int64)


def _used(op: str, inputs: str, **attrs: Any) -> list[Any]:
    """Nodes that bring what `op` makes of constants into the result."""
    nodes = [node(op, inputs, "c", **attrs), node("Cast", "c", "d", to=1)]
    return [*nodes, node("ReduceMax", "d", "e", keepdims=0), node("Mul", "x e")]


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        (_used("Add", "a b"), {"a": draw(F, (1, LONG)), "b": draw(F, (LONG, 1))}),
        (_used("Tile", "a r"), {"a": draw(F, (4096,)), "r": _ints(1 << 20)}),
        (_used("Gather", "a i"), {"a": draw(F, (1, LONG)), "i": np.zeros(LONG, np.int64)}),
        (_used("Pad", "a p"), {"a": draw(F, (4,)), "p": _ints(0, 1 << 31)}),
        (_used("Range", "a b s"), {"a": np.array(0), "b": np.array(1 << 40), "s": np.array(1)}),
        (_used("ConstantOfShape", "s"), {"s": _ints(1 << 33)}),
    ],
    ids=["Add", "Tile", "Gather", "Pad", "Range", "ConstantOfShape"],
)  # fmt: skip
def test_constants_that_grow(nodes: Any, constants: Any) -> None:
    with pytest.raises(InvalidModelError, match="passes 2147483648 elements"):
        load(graph(nodes, ROWS, constants), backend="reference")


def test_an_input_that_nobody_reads() -> None:
    inputs = {**ROWS, "u": (F, (1 << 40,))}

    with pytest.raises(InvalidModelError, match=r"input 'u' .* passes"):
        load(graph([node("Relu", "x")], inputs), backend="reference")


def test_too_many_nodes() -> None:
    nodes = [node("Relu", f"v{i}", f"v{i + 1}") for i in range(MAX_NODES + 1)]
    file = graph(nodes, {"v0": (F, (1,))}, outputs=f"v{MAX_NODES + 1}")

    with pytest.raises(InvalidModelError, match="nodes pass the limit"):
        import_model(file)


def test_the_last_node_first() -> None:
    """As many nodes as are allowed in the worst order: one pass a node would hang."""
    nodes = [node("Relu", f"v{i}", f"v{i + 1}") for i in range(MAX_NODES)]
    file = graph(nodes[::-1], {"v0": (F, (1,))}, outputs=f"v{MAX_NODES}")

    made = [n.output for n in import_model(file).nodes]

    assert made == [f"v{i + 1}" for i in range(MAX_NODES)]


@pytest.mark.parametrize(
    ("nodes", "inputs", "constants", "message"),
    [
        ([node("ReduceL1", "i", "t"), node("Cast", "t", to=1)], WHOLE, {}, "FP32 is needed, got INT64"),
        ([node("Gemm", "i j", "t"), node("Cast", "t", to=1)], WHOLE, {}, "FP32 is needed, got INT64"),
        ([node("GlobalAveragePool", "k", "t"), node("Cast", "t", to=1)], {"k": (np.int64, (1, 2, 3))}, {}, "FP32 is needed, got INT64"),
        ([node("Pad", "x p")], ROWS, {"p": _ints(0, 9, 0, -5)}, "leave nothing of"),
        ([node("ReduceMax", "x", axes=[1, -1])], ROWS, {}, "name one axis twice"),
        ([node("Expand", "x s")], ROWS, {"s": _ints(*[1] * 40, 4)}, "dimension"),
        ([node("Neg", "b", "t"), node("Cast", "t", to=1)], TRUTH, {}, "FP32 is needed, got BOOL"),
        ([node("Sub", "b b", "t"), node("Cast", "t", to=1)], TRUTH, {}, "does not work on BOOL"),
        ([node("And", "x x", "t"), node("Cast", "t", to=1)], ROWS, {}, "does not work on FP32"),
        ([node("Cast", "x", to=999)], ROWS, {}, r"\(Cast\): 999"),
        (_used("Range", "a b a"), ROWS, {"a": np.array(0), "b": np.array(1)}, "division by zero"),
        ([node("Slice", "x a a b", "s"), node("ReduceMax", "s")], ROWS, {"a": _ints(0), "b": _ints(1)}, "is empty"),
        ([node("Slice", "x a a b", "s"), node("Pad", "s p", mode="edge")], ROWS, {"a": _ints(0), "b": _ints(1), "p": _ints(0, 1, 0, 1)}, "nothing to repeat"),
    ],
)  # fmt: skip
def test_types_and_sizes_that_have_no_result(
    nodes: Any, inputs: Any, constants: Any, message: str
) -> None:
    with pytest.raises(InvalidModelError, match=message):
        load(graph(nodes, inputs, constants), backend="reference")


def test_an_attribute_of_a_newer_operator_set() -> None:
    file = graph([node("ReduceMean", "x", axes="abc")], ROWS, opset=18)

    with pytest.raises(InvalidModelError, match="'abc'"):
        load(file, backend="reference")


def test_texts() -> None:
    words = np.array(["a", "b"], object)

    with pytest.raises(UnsupportedModelError, match="texts are not supported"):
        load(graph([node("Identity", "s")], ROWS, {"s": words}), backend="reference")


def test_all_settings_that_depend_on_data_are_named() -> None:
    inputs = {**ROWS, "s": (np.int64, (2,)), "t": (np.int64, (2,))}
    nodes = [
        node("Reshape", "x s", "a"),
        node("Expand", "x t", "b"),
        node("Relu", "a", "c"),
        node("Add", "b c"),
    ]

    with pytest.raises(UnsupportedModelError) as refused:
        load(graph(nodes, inputs), backend="reference")

    assert [name.split(":")[0] for name in refused.value.nodes] == [
        "Reshape_0 (Reshape, ai.onnx 17)",
        "Expand_1 (Expand, ai.onnx 17)",
    ]
