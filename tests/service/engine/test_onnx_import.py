"""Files that are broken, hostile or unknown are refused, and the error says why."""
# ruff: noqa: E501 - one case a line is a table that can be read

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import draw, graph, node

from nnz_service.engine import inspect, load
from nnz_service.engine.onnx_import import import_model
from nnz_service.errors import InvalidModelError, UnsupportedModelError

F = np.float32
ROWS = {"x": (F, ("n", 4))}


def changed(
    change: Callable[[onnx.ModelProto], Any], file: bytes | None = None
) -> bytes:
    """A valid model after `change`."""
    model = onnx.ModelProto.FromString(
        file or graph([node("MatMul", "x w")], ROWS, {"w": draw(F, (4, 3))})
    )
    change(model)
    return bytes(model.SerializeToString())


def weight(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.initializer[0]


def _external(model: onnx.ModelProto) -> None:
    weight(model).data_location = TensorProto.EXTERNAL
    weight(model).external_data.add(key="location", value="../../etc/passwd")


def _huge(model: onnx.ModelProto) -> None:
    weight(model).dims[:] = [1 << 40, 1 << 40]


def _short(model: onnx.ModelProto) -> None:
    weight(model).raw_data = weight(model).raw_data[:-4]


def _negative(model: onnx.ModelProto) -> None:
    weight(model).dims[0] = -4


def _unknown_type(model: onnx.ModelProto) -> None:
    weight(model).data_type = 77


def _missing(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node.extend([node("Relu", "b", "a"), node("Relu", "a", "b")])


def _twice(model: onnx.ModelProto) -> None:
    model.graph.node.extend([node("Relu", "x", "y")])


def _no_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "z"


def _no_shape(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def _wrong_depth(model: onnx.ModelProto) -> None:
    weight(model).CopyFrom(numpy_helper.from_array(draw(F, (5, 3)), "w"))


def _double_weights(model: onnx.ModelProto) -> None:
    weight(model).CopyFrom(numpy_helper.from_array(draw(np.float64, (4, 3)), "w"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_external, "initializer 'w': its data lies in another file"),
        (_huge, "initializer 'w': dims .* claim"),
        (_short, "initializer 'w'"),
        (_negative, r"initializer 'w': dims \[-4, 3\] are negative"),
        (_unknown_type, "initializer 'w'"),
        (_missing, r"node .* \(MatMul\) reads 'nowhere', which nothing makes"),
        (_cycle, r"\(Relu\) is part of a cycle"),
        (_twice, "value 'y' is made more than once"),
        (_no_output, "output 'z' is made by no node"),
        (_no_shape, "input 'x' has no shape"),
        (_wrong_depth, r"node 'MatMul_0' \(.*\): 5 features are needed, got \[1, 4\]"),
        (_double_weights, "node 'MatMul_0' .* type FP64, FP32 is needed"),
    ],
)
def test_broken_files(change: Callable[[onnx.ModelProto], None], message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        load(changed(change), backend="reference")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07" * 50])
def test_not_a_model(content: bytes) -> None:
    with pytest.raises(InvalidModelError, match=r"not an ONNX"):
        load(content)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_truncated(keep: float) -> None:
    file = graph([node("Relu", "x")], ROWS)

    with pytest.raises(InvalidModelError):
        load(file[: int(keep * len(file))], backend="reference")


CONV = {"w": draw(F, (4, 2, 3, 3)), "b": draw(F, (4,))}
IMAGE = {"x": (F, (1, 2, 8, 8))}


@pytest.mark.parametrize(
    ("nodes", "inputs", "constants", "message"),
    [
        ([node("Conv", "x w", group=3)], IMAGE, CONV, "do not fit 3 groups"),
        ([node("Conv", "x w", group=2)], IMAGE, CONV, "4 channels are needed, got 2"),
        ([node("Conv", "x w", pads=[1, 1])], IMAGE, CONV, "4 pads >= 0 are needed"),
        ([node("Conv", "x w", pads=[0, 0, -1, 0])], IMAGE, CONV, "4 pads >= 0"),
        ([node("Conv", "x w", strides=[0, 1])], IMAGE, CONV, "must be positive"),
        ([node("Conv", "x w", kernel_shape=[5, 5])], IMAGE, CONV, "not that of its"),
        ([node("Conv", "x w", dilations=[9, 9])], IMAGE, CONV, "larger than the padded"),
        ([node("Conv", "x w w")], IMAGE, CONV, r"bias \[4, 2, 3, 3\], \[4\] is needed"),
        ([node("Conv", "x w", group=1.5)], IMAGE, CONV, "attribute group must be INT"),
        ([node("Concat", "x x")], IMAGE, {}, "attribute axis is missing"),
        ([node("Concat", "x x", axis=9)], IMAGE, {}, "axis 9 is outside of rank 4"),
        ([node("Transpose", "x", perm=[0, 0])], IMAGE, {}, "does not permute rank 4"),
        ([node("Reshape", "x s")], IMAGE, {"s": np.array([7, -1])}, "cannot become"),
        ([node("Reshape", "x s")], IMAGE, {"s": np.array([-1, -1])}, "more than one -1"),
        ([node("Add", "x b")], IMAGE, {"b": draw(F, (3,))}, "Add"),
        ([node("Add", "x b")], IMAGE, {"b": np.array([1])}, "types differ"),
        ([node("Gather", "b i", "g"), node("Add", "x g")], IMAGE, {"b": draw(F, (3,)), "i": np.array(9)}, "are outside of axis 0"),
        ([node("Expand", "x s")], IMAGE, {"s": np.array([1 << 30, 1, 8, 8])}, "passes 2147483648"),
        ([node("DepthToSpace", "x", blocksize=3)], IMAGE, {}, "do not split into blocks"),
    ],
)  # fmt: skip
def test_nodes_that_do_not_fit(
    nodes: Any, inputs: Any, constants: Any, message: str
) -> None:
    with pytest.raises(InvalidModelError, match=message):
        load(graph(nodes, inputs, constants), backend="reference")


def test_all_unsupported_nodes_are_named() -> None:
    file = graph(
        [
            node("Relu", "x", "a"),
            helper.make_node("LSTM", ["a", "w", "r"], ["b"], name="memory"),
            helper.make_node("Magic", ["a"], ["c"], name="trick", domain="org.wizards"),
            node("MaxPool", "x", "d e", kernel_shape=[1]),
            node("Sum", "b c d e"),
        ],
        {"x": (F, (1, 2, 8))},
        {"w": draw(F, (1, 4, 8)), "r": draw(F, (1, 4, 1))},
    )

    for reader in (load, inspect):
        with pytest.raises(UnsupportedModelError) as refused:
            reader(file)

        assert refused.value.nodes == (
            "memory (LSTM, ai.onnx 17): no such operator in this engine",
            "trick (Magic, org.wizards 17): domain org.wizards",
            "MaxPool_3 (MaxPool, ai.onnx 17): outputs e",
        )


def test_weights_that_are_not_constant_are_named() -> None:
    inputs = {**IMAGE, "w": (F, (4, 2, 3, 3))}

    with pytest.raises(UnsupportedModelError, match="weights are not constant"):
        load(graph([node("Conv", "x w")], inputs), backend="reference")


def test_all_kinds_of_refusal_are_named_at_once() -> None:
    nodes = [
        node("Relu", "w", "v", name="kernel"),
        node("Conv", "x v", "c", name="filter"),
        node("Det", "x", "d", name="odd"),
        node("Shape", "x", "s"),
        node("Reshape", "c s", "r"),
        node("Cast", "d", "t", to=TensorProto.INT64),
        node("Reshape", "r t", name="late"),
    ]
    inputs = {**IMAGE, "w": (F, (4, 2, 3, 3))}

    with pytest.raises(UnsupportedModelError) as refused:
        load(graph(nodes, inputs), backend="reference")

    assert refused.value.nodes == (
        "filter (Conv, ai.onnx 17): its weights are not constant",
        "odd (Det, ai.onnx 17): no such operator in this engine",
        "late (Reshape, ai.onnx 17): its input 1 (t) depends on data",
    )


@pytest.mark.parametrize("opset", [6, 23])
def test_unknown_opsets(opset: int) -> None:
    file = graph([node("Relu", "x")], ROWS, opset=opset)

    with pytest.raises(UnsupportedModelError, match="supported are 7 to 22"):
        load(file)


def test_unknown_input_types() -> None:
    def half(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16

    with pytest.raises(UnsupportedModelError, match="'x' is of type float16"):
        load(changed(half))


def test_nodes_in_any_order() -> None:
    file = graph([node("Relu", "h"), node("Neg", "x", "h")], ROWS)

    found = import_model(file)

    assert [n.op for n in found.nodes] == ["Neg", "Relu"]


def test_names_are_made_unique() -> None:
    names = ["same_2", "same", "same", "same"]
    values = ["x", "a", "b", "c", "y"]
    nodes = [
        helper.make_node("Relu", [one], [other], name=name)
        for name, one, other in zip(names, values, values[1:], strict=False)
    ]

    found = import_model(graph(nodes, ROWS))

    assert len({n.name for n in found.nodes}) == 4
